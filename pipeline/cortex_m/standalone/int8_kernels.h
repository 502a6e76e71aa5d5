/*
 * Integer kernels with the arithmetic of TensorFlow Lite's reference kernels: the same bytes out for the same bytes in.
 *
 * Plain C99. Activations are int8 in rows of [columns][channels]; sums are int32; nothing is allocated, and there is
 * no floating point. A right shift of a negative number must be arithmetic, as it is with every compiler for these
 * machines. Biases include the contribution of the input's zero point, so products are those of the stored bytes.
 *
 * The speed comes from the order of the loops, not from special instructions: a convolution widens a block of pixels to
 * int16 once, then computes two output channels at a time for all of them. Weights are read once for each block, and
 * compilers recognize the dot products.
 */
#ifndef INT8_KERNELS_H
#define INT8_KERNELS_H

#include <stdint.h>
#include <string.h>

/* Pixels per block: as many as the registers allow. */
#if defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define PIXELS 2
#else
#define PIXELS 4
#endif

/* Every size is a literal at the call, which compilers use if the kernel is inlined. */
#if defined(__GNUC__)
#define KERNEL static inline __attribute__((always_inline, unused))
#else
#define KERNEL static inline
#endif

/* Sums that are requantized at a time. */
#define RUN 32

#define ADD_LEFT_SHIFT 20
#define SOFTMAX_SUM_BITS 12

/* How sums become outputs: a multiplier and a shift for each channel; a positive shift is to the left. */
typedef struct {
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    int32_t zero_point, low, high;
} requantization;

/* Division by a power of two that rounds halves away from zero: RoundingDivideByPOT. */
KERNEL int32_t rounded_shift(int32_t value, int32_t exponent)
{
    const int32_t mask = (int32_t)((1u << exponent) - 1u);
    return (value >> exponent) + ((value & mask) > (mask >> 1) + (value < 0));
}

/* SaturatingRoundingDoublingHighMul; nothing saturates, as no multiplier is INT32_MIN. */
KERNEL int32_t high_product(int32_t value, int32_t multiplier)
{
    return (int32_t)(uint32_t)((uint64_t)((int64_t)value * multiplier + (1 << 30)) >> 31);
}

/* MultiplyByQuantizedMultiplier, which rounds twice. */
KERNEL int32_t scaled(int32_t value, int32_t multiplier, int32_t shift)
{
    const int32_t left = shift > 0 ? shift : 0;
    return rounded_shift(high_product((int32_t)((uint32_t)value << left), multiplier), left - shift);
}

/* A number times a power of two, saturated to int32. */
KERNEL int32_t raised(int32_t value, int32_t exponent)
{
    const int32_t most = INT32_MAX >> exponent;
    return value > most ? INT32_MAX : value < -most - 1 ? INT32_MIN : value * (1 << exponent);
}

KERNEL int8_t clamped(int32_t value, int32_t low, int32_t high)
{
    return (int8_t)(value < low ? low : value > high ? high : value);
}

/* The output for one sum. */
KERNEL int8_t requantized(int32_t sum, int32_t bias, int32_t multiplier, int32_t shift, requantization to)
{
    return clamped(scaled(sum + bias, multiplier, shift) + to.zero_point, to.low, to.high);
}

/* The outputs for at most RUN sums of one channel, written `apart` bytes from each other. */
KERNEL void requantize_run(const int32_t *restrict sums, int32_t count, int32_t channel, requantization to,
                           int8_t *restrict out, int32_t apart)
{
    const int32_t bias = to.bias[channel], multiplier = to.multiplier[channel], shift = to.shift[channel];
    int8_t outputs[RUN] = {0};
    int32_t at;
    for (at = 0; at < count; ++at)
        outputs[at] = requantized(sums[at], bias, multiplier, shift, to);
    for (at = 0; at < count; ++at)
        out[at * apart] = outputs[at];
}

KERNEL int32_t larger(int32_t one, int32_t two)
{
    return one > two ? one : two;
}

/* Rows of an input with `all` rows that the first `rows` output rows need; the first one needs `reach`. */
KERNEL int32_t rows_needed(int32_t rows, int32_t stride, int32_t reach, int32_t all)
{
    const int32_t needed = (rows - 1) * stride + reach;
    return needed < all ? needed : all;
}

/* Finds `count` of the `all` rows of an input, of which `kept` are in memory; a row outside the input is NULL. */
KERNEL void input_rows(const int8_t *input, int32_t kept, int32_t row_bytes, int32_t all, int32_t first,
                       int32_t dilation, int32_t count, const int8_t **rows)
{
    int32_t at;
    for (at = 0; at < count; ++at) {
        const int32_t row = first + at * dilation;
        rows[at] = row >= 0 && row < all ? input + row % kept * row_bytes : NULL;
    }
}

/* Dot products of PIXELS widened pixels, `depth` apart, with the weights of two channels. */
KERNEL void products(const int16_t *restrict pixels, const int8_t *restrict one, const int8_t *restrict two,
                     int32_t depth, int32_t *restrict first, int32_t *restrict second)
{
    const int16_t *restrict p0 = pixels, *restrict p1 = pixels + depth;
#if PIXELS == 4
    const int16_t *restrict p2 = pixels + 2 * depth, *restrict p3 = pixels + 3 * depth;
    int32_t a2 = 0, a3 = 0, b2 = 0, b3 = 0;
#endif
    int32_t a0 = 0, a1 = 0, b0 = 0, b1 = 0, at;
    for (at = 0; at < depth; ++at) {
        const int16_t a = one[at], b = two[at];
        a0 += p0[at] * a, b0 += p0[at] * b;
        a1 += p1[at] * a, b1 += p1[at] * b;
#if PIXELS == 4
        a2 += p2[at] * a, b2 += p2[at] * b;
        a3 += p3[at] * a, b3 += p3[at] * b;
#endif
    }
    first[0] = a0, second[0] = b0;
    first[1] = a1, second[1] = b1;
#if PIXELS == 4
    first[2] = a2, second[2] = b2;
    first[3] = a3, second[3] = b3;
#endif
}

/* Widened pixels [count][depth] and weights [channels][depth] to outputs [count][channels]. */
KERNEL void convolve(int16_t *pixels, int32_t count, int32_t depth, const int8_t *weights, int32_t channels,
                     requantization to, int8_t *out)
{
    int32_t channel, first, pixel;
    /* What fills up the last PIXELS is multiplied too, and must not overflow. */
    memset(pixels + count * depth, 0, (size_t)(-count & (PIXELS - 1)) * (size_t)depth * sizeof *pixels);
    for (channel = 0; channel < channels; channel += 2) {
        const int32_t last = channel + 1 < channels ? channel + 1 : channel;
        for (first = 0; first < count; first += RUN) {
            const int32_t run = count - first < RUN ? count - first : RUN;
            int32_t sums[2][RUN] = {{0}};
            for (pixel = 0; pixel < run; pixel += PIXELS)
                products(pixels + (first + pixel) * depth, weights + channel * depth, weights + last * depth, depth,
                         sums[0] + pixel, sums[1] + pixel);
            requantize_run(sums[0], run, channel, to, out + first * channels + channel, channels);
            requantize_run(sums[1], run, last, to, out + first * channels + last, channels);
        }
    }
}

KERNEL void widen(const int8_t *restrict from, int32_t count, int16_t *restrict to)
{
    int32_t at;
    for (at = 0; at < count; ++at)
        to[at] = from[at];
}

/* A convolution by 1 x 1 with steps of 1: every pixel for itself, whatever the rows. */
KERNEL void point_convolution(const int8_t *in, int32_t pixels, int32_t depth, const int8_t *weights, int32_t channels,
                              requantization to, int8_t *out, int16_t *scratch, int32_t block)
{
    int32_t first;
    for (first = 0; first < pixels; first += block) {
        const int32_t count = pixels - first < block ? pixels - first : block;
        widen(in + first * depth, count * depth, scratch);
        convolve(scratch, count, depth, weights, channels, to, out + first * channels);
    }
}

/* How a window moves along a row of the input: all in pixels. */
typedef struct {
    int32_t height, width, stride, dilation, pad, columns, channels;
} window;

/* One output row of any convolution. Of the input's `rows` those outside it are NULL and count as `zero_point`. */
KERNEL void convolution_row(const int8_t *const *rows, window over, int32_t zero_point, const int8_t *weights,
                            int32_t columns, int32_t channels, requantization to, int8_t *out, int16_t *scratch,
                            int32_t block)
{
    const int32_t depth = over.height * over.width * over.channels;
    int32_t first, column, y, x, at;
    for (first = 0; first < columns; first += block) {
        const int32_t count = columns - first < block ? columns - first : block;
        int16_t *pixel = scratch;
        for (column = first; column < first + count; ++column)
            for (y = 0; y < over.height; ++y)
                for (x = 0; x < over.width; ++x, pixel += over.channels) {
                    const int32_t place = column * over.stride - over.pad + x * over.dilation;
                    const int inside = rows[y] && place >= 0 && place < over.columns;
                    for (at = 0; at < over.channels; ++at)
                        pixel[at] = (int16_t)(inside ? rows[y][place * over.channels + at] : zero_point);
                }
        convolve(scratch, count, depth, weights, channels, to, out + first * channels);
    }
}

/* One pixel of a depthwise convolution by 3 x 3: its nine input pixels, and weights [9][channels]. */
KERNEL void depthwise_3x3(const int8_t *const *t, const int8_t *w, int32_t channels, requantization to,
                          int8_t *restrict out)
{
    const int8_t *restrict t0 = t[0], *restrict t1 = t[1], *restrict t2 = t[2], *restrict t3 = t[3];
    const int8_t *restrict t4 = t[4], *restrict t5 = t[5], *restrict t6 = t[6], *restrict t7 = t[7];
    const int8_t *restrict t8 = t[8];
    int32_t c;
    for (c = 0; c < channels; ++c) {
        int32_t sum = t0[c] * w[c] + t1[c] * w[channels + c] + t2[c] * w[2 * channels + c];
        sum += t3[c] * w[3 * channels + c] + t4[c] * w[4 * channels + c] + t5[c] * w[5 * channels + c];
        sum += t6[c] * w[6 * channels + c] + t7[c] * w[7 * channels + c] + t8[c] * w[8 * channels + c];
        out[c] = requantized(sum, to.bias[c], to.multiplier[c], to.shift[c], to);
    }
}

/* One pixel of any other depthwise convolution. */
KERNEL void depthwise(const int8_t *const *taps, int32_t count, const int8_t *w, int32_t channels, requantization to,
                      int8_t *out)
{
    int32_t c, tap;
    for (c = 0; c < channels; ++c) {
        int32_t sum = 0;
        for (tap = 0; tap < count; ++tap)
            sum += taps[tap][c] * w[tap * channels + c];
        out[c] = requantized(sum, to.bias[c], to.multiplier[c], to.shift[c], to);
    }
}

/* One output row of a depthwise convolution; `outside` is a pixel outside the input, `taps` is scratch memory. */
KERNEL void depthwise_row(const int8_t *const *rows, window over, const int8_t *outside, const int8_t *weights,
                          int32_t columns, requantization to, int8_t *out, const int8_t **taps)
{
    int32_t column, y, x;
    for (column = 0; column < columns; ++column, out += over.channels) {
        for (y = 0; y < over.height; ++y)
            for (x = 0; x < over.width; ++x) {
                const int32_t place = column * over.stride - over.pad + x * over.dilation;
                const int inside = rows[y] && place >= 0 && place < over.columns;
                taps[y * over.width + x] = inside ? rows[y] + place * over.channels : outside;
            }
        if (over.height == 3 && over.width == 3)
            depthwise_3x3(taps, weights, over.channels, to, out);
        else
            depthwise(taps, over.height * over.width, weights, over.channels, to, out);
    }
}

/* The scaling of ADD: of its two operands, and of their sum. */
typedef struct {
    int32_t zero_point[3], multiplier[3], shift[3], low, high;
} addition;

KERNEL int32_t operand(int8_t value, int32_t which, const addition *by)
{
    const int32_t shifted = (value - by->zero_point[which]) * (1 << ADD_LEFT_SHIFT);
    return rounded_shift(high_product(shifted, by->multiplier[which]), -by->shift[which]);
}

/* The output may be one of the operands. */
KERNEL void add(const int8_t *one, const int8_t *two, int32_t count, const addition *by, int8_t *out)
{
    int32_t at;
    for (at = 0; at < count; ++at) {
        const int32_t sum = operand(one[at], 0, by) + operand(two[at], 1, by);
        const int32_t value = rounded_shift(high_product(sum, by->multiplier[2]), -by->shift[2]);
        out[at] = clamped(value + by->zero_point[2], by->low, by->high);
    }
}

/* One output row of an average pool, over the part of the window inside the input. */
KERNEL void average_row(const int8_t *const *rows, window over, int32_t columns, int32_t low, int32_t high, int8_t *out)
{
    int32_t column, y, x, c;
    for (column = 0; column < columns; ++column, out += over.channels)
        for (c = 0; c < over.channels; ++c) {
            int32_t sum = 0, count = 0;
            for (y = 0; y < over.height; ++y)
                for (x = 0; x < over.width; ++x) {
                    const int32_t place = column * over.stride - over.pad + x;
                    if (rows[y] && place >= 0 && place < over.columns) {
                        sum += rows[y][place * over.channels + c];
                        ++count;
                    }
                }
            out[c] = clamped((sum > 0 ? sum + count / 2 : sum - count / 2) / count, low, high);
        }
}

/* 1 / (1 + value), value in [0, 1), with 31 fraction bits: three steps of Newton and Raphson. */
KERNEL int32_t reciprocal(int32_t value)
{
    const int32_t half = (int32_t)(((int64_t)value + INT32_MAX + 1) / 2);
    int32_t x = 1515870810 + high_product(half, -1010580540), step; /* 48/17 - 32/17 half, with 29 fraction bits */
    for (step = 0; step < 3; ++step)
        x += raised(high_product(x, (1 << 29) - high_product(half, x)), 2);
    return raised(x, 1);
}

/* `exponentials` are those of the differences 0, -1, ..., -255 to the largest input. */
KERNEL void softmax(const int8_t *in, int32_t count, int32_t depth, const int32_t *exponentials, int8_t *out)
{
    int32_t row, at;
    for (row = 0; row < count; ++row, in += depth, out += depth) {
        int32_t largest = INT8_MIN, sum = 0, shift = 0, scale, exponent;
        for (at = 0; at < depth; ++at)
            largest = in[at] > largest ? in[at] : largest;
        for (at = 0; at < depth; ++at)
            sum += rounded_shift(exponentials[largest - in[at]], SOFTMAX_SUM_BITS);
        while (((uint32_t)sum << shift) < 1u << 31)
            ++shift;
        scale = reciprocal((int32_t)(((uint32_t)sum << shift) - (1u << 31)));
        /* Beyond 31, where the reference kernels stop the program, each of over 511 scores is below half a step. */
        exponent = SOFTMAX_SUM_BITS - shift + 31 - 8;
        for (at = 0; at < depth; ++at) {
            const int32_t product = high_product(scale, exponentials[largest - in[at]]);
            const int32_t score = exponent > 31 ? 0 : rounded_shift(product, exponent);
            out[at] = clamped(score + INT8_MIN, INT8_MIN, INT8_MAX);
        }
    }
}

#endif
