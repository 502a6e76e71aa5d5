"""A provenance statement as in-toto's own messages, which give every field its type.

The parameters of the predicate are not among them. Their message is protobuf's Struct, which turns every number into a
float and keeps no order of its fields: `96` would be written as `96.0`, which has another digest, and the bytes would
differ from run to run. So they are read and written as JSON, and so is the file as a whole.
"""

from __future__ import annotations

from typing import Any

from recreate_model.support.digest import Json

_PARAMETERS = ("externalParameters", "internalParameters")


def statement_message(document: Json, *, strict: bool) -> Any:
    """The `Statement`, without its predicate.

    Args:
        document: the statement as JSON.
        strict: whether a field that in-toto does not know is an error; else it is ignored.

    Raises:
        ValueError, AttributeError: a field has the wrong type or form.
    """
    from in_toto_attestation.v1 import statement_pb2

    return _parsed(
        {name: value for name, value in document.items() if name != "predicate"}, statement_pb2.Statement(), strict
    )


def predicate_message(document: Json, *, strict: bool) -> Any:
    """The statement's predicate, a SLSA `Provenance`, without its parameters. Arguments and errors as above.

    Raises:
        KeyError: it has no predicate, or the predicate no build definition.
    """
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2

    predicate = document["predicate"]
    definition = {name: value for name, value in predicate["buildDefinition"].items() if name not in _PARAMETERS}
    return _parsed({**predicate, "buildDefinition": definition}, provenance_pb2.Provenance(), strict)


def _parsed(document: Json, message: Any, strict: bool) -> Any:
    from google.protobuf import json_format

    try:
        return json_format.ParseDict(document, message, ignore_unknown_fields=not strict)
    except json_format.ParseError as error:
        raise ValueError(str(error)) from error
