/*
 * Bare-metal check of the standalone runtime under an emulator: no operating system, no C library below it but memcpy.
 *
 * Prints the CRC-32 of the model's array as it lies in memory, then for each picture of `inputs.bin` the five best
 * classes and how long it took; `outputs.bin` gets all scores, for the host to compare. Files and text go through
 * semihosting (Arm's "Semihosting for AArch32 and AArch64", operations 0x01 to 0x20).
 */
#include <stdint.h>
#include <string.h>

#include "firmware_model.h" /* the model's labels, and names of its files and arrays; made by the host */

#define BEST 5

enum { SYS_OPEN = 0x01, SYS_CLOSE = 0x02, SYS_WRITE0 = 0x04, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT_EXTENDED = 0x20 };
enum { READ_BINARY = 1, WRITE_BINARY = 5 };

extern uint32_t data_start, data_end, data_load, bss_start, bss_end, stack_end;

static intptr_t semihost(intptr_t operation, const void *block)
{
    register intptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void stop(uint32_t status)
{
    const uint32_t block[2] = {0x20026, status}; /* ADP_Stopped_ApplicationExit */
    semihost(SYS_EXIT_EXTENDED, block);
    for (;;)
        ;
}

static void print(const char *text)
{
    semihost(SYS_WRITE0, text);
}

static void print_number(uint32_t value, uint32_t base)
{
    char digits[33], *at = digits + sizeof digits - 1;
    *at = '\0';
    do {
        *--at = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    print(at);
}

static void print_signed(int32_t value)
{
    if (value < 0)
        print("-");
    print_number(value < 0 ? 0u - (uint32_t)value : (uint32_t)value, 10);
}

static intptr_t open_file(const char *name, uint32_t mode)
{
    const uintptr_t block[3] = {(uintptr_t)name, mode, strlen(name)};
    const intptr_t handle = semihost(SYS_OPEN, block);
    if (handle < 0) {
        print("cannot open a file of the host\n");
        stop(1);
    }
    return handle;
}

/* The bytes that were not transferred. */
static uintptr_t transfer(intptr_t operation, intptr_t handle, const void *data, uintptr_t bytes)
{
    const uintptr_t block[3] = {(uintptr_t)handle, (uintptr_t)data, bytes};
    return (uintptr_t)semihost(operation, block);
}

static uint32_t crc32(const unsigned char *data, uint32_t bytes)
{
    uint32_t table[256], crc = 0xffffffffu, at, bit;
    for (at = 0; at < 256; ++at) {
        table[at] = at;
        for (bit = 0; bit < 8; ++bit)
            table[at] = (table[at] >> 1) ^ (table[at] & 1 ? 0xedb88320u : 0);
    }
    for (at = 0; at < bytes; ++at)
        crc = (crc >> 8) ^ table[(crc ^ data[at]) & 0xff];
    return ~crc;
}

static void print_best(const int8_t *scores)
{
    int32_t best[BEST], count, at, place;
    for (count = 0, at = 0; at < MODEL_CLASSES; ++at) {
        for (place = count; place > 0 && scores[at] > scores[best[place - 1]]; --place)
            if (place < BEST)
                best[place] = best[place - 1];
        if (place < BEST) {
            best[place] = at;
            count += count < BEST;
        }
    }
    for (place = 0; place < count; ++place) {
        print("best ");
        print_number((uint32_t)best[place], 10);
        print(" score ");
        print_signed(scores[best[place]]);
        print(" ");
        print(best[place] < LABELS_COUNT ? labels[best[place]] : "no label");
        print("\n");
    }
}

static void check(void)
{
    const volatile uint32_t *counter = (const volatile uint32_t *)COUNTER;
    const intptr_t inputs = open_file("inputs.bin", READ_BINARY), outputs = open_file("outputs.bin", WRITE_BINARY);
    uint32_t picture, start;
    print("crc32 ");
    print_number(crc32(MODEL_DATA, MODEL_SIZE), 16);
    print("\n");
    for (picture = 0; transfer(SYS_READ, inputs, model_input(), MODEL_INPUT_BYTES) == 0; ++picture) {
        start = *counter;
        model_run();
        print("picture ");
        print_number(picture, 10);
        print(" ticks ");
        print_number(*counter - start, 10);
        print("\n");
        print_best(model_output());
        if (transfer(SYS_WRITE, outputs, model_output(), MODEL_CLASSES) != 0) {
            print("cannot write a file of the host\n");
            stop(1);
        }
    }
    semihost(SYS_CLOSE, &inputs);
    semihost(SYS_CLOSE, &outputs);
    print("done\n");
}

static void fault(void)
{
    print("fault\n");
    stop(1);
}

static void reset(void)
{
#if defined(__ARM_FEATURE_MVE) || defined(__ARM_FP)
    *(volatile uint32_t *)0xe000ed88 |= 0xf << 20; /* CPACR: the compiler may use vector registers for whole numbers */
    __asm__ volatile("dsb\n isb");
#endif
    memcpy(&data_start, &data_load, (size_t)((char *)&data_end - (char *)&data_start));
    memset(&bss_start, 0, (size_t)((char *)&bss_end - (char *)&bss_start));
    check();
    stop(0);
}

typedef void (*handler)(void);
__attribute__((section(".vectors"), used)) static const handler vectors[16] = {
    (handler)&stack_end, reset, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault,
};
