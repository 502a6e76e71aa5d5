"""The text of the model card, in the form of the published one; `card.py` fills it in."""

README = """\
{warning}# MobileNet v2 {recipe.model.width} {recipe.model.resolution} INT8

## Description
{description}

{origin} Recipe `{recipe.id}`.

## License
[Apache-2.0](https://spdx.org/licenses/Apache-2.0.html){terms}

## Related Materials
### Class Labels
The class labels associated with this model are in [labels.txt](labels.txt); the script `get_class_labels.sh` of the \
recreation code writes them too.

### Model Recreation Code
This model was made by `python -m pipeline all` of the project this card comes from; the code is in its \
`recreate_model/`.

## Network Information
| Network Information |  Value         |
|---------------------|----------------|
|  Framework          | TensorFlow Lite |
|  File               | {recipe.name}.tflite |
|  SHA-1 Hash         | {sha1} |
|  SHA-256 Hash       | {sha256} |
|  Size (Bytes)       | {size} |
|  Provenance         | {paper} |
|  Paper              | {paper} |

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
