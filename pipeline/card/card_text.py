"""The text of the model card, in the form of the published one; `card.py` fills it in."""

README = """\
{warning}# {words.title}

## Description
{words.description}

{words.origin} Recipe `{recipe.id}`.

## License
[Apache-2.0](https://spdx.org/licenses/Apache-2.0.html){words.terms}

## Related Materials
### Class Labels
{words.labels}

### Model Recreation Code
{words.code}
{left_out}
## Network Information
| Network Information |  Value         |
|---------------------|----------------|
|  Framework          | TensorFlow Lite |
|  File               | {recipe.name}.tflite |
|  SHA-1 Hash         | {sha1} |
|  SHA-256 Hash       | {sha256} |
|  Size (Bytes)       | {size} |
|  Provenance         | {words.paper} |
|  Paper              | {words.paper} |

## Performance
| Platform | Optimized | Evidence |
|----------|:---------:|----------|
{platforms}

### Key
{key}
{evidence}{ethos_u}
## Accuracy
Dataset: {dataset}

| Metric | Value | 95 % interval (Wilson) | Pictures |
|--------|-------|------------------------|----------|
| Top 1 Accuracy | {accuracy} |
| Agreement with the float model | {agreement} |

## Optimizations
| Optimization |  Value  |
|--------------|---------|
| Quantization | INT8 |

## Network Inputs
{input_table}

## Network Outputs
{output_table}
{files}"""
