"""What ``query-qmp-schema`` answers (qapi/introspect.json)."""

from typing import Annotated, Any

from blockemu.qmp_server.qapi import ABSENT, Deprecated, QEnum, Since, Struct, Union

SCHEMA = Union("SchemaInfo", "meta-type")
Features = Annotated[list[str] | None, Since("4.2")]


class JSONType(QEnum):
    """A type of JSON's, and two kinds of its numbers."""

    STRING = "string"
    NUMBER = "number"
    INT = "int"
    BOOLEAN = "boolean"
    NULL = "null"
    OBJECT = "object"
    ARRAY = "array"
    VALUE = "value"


class SchemaInfo(Struct):
    """Something in the interface.

    @name: its name: a public one, or a number
    @features: its features
    """

    union = SCHEMA
    name: str
    features: Features = None


class SchemaInfoBuiltin(SchemaInfo, tag="builtin"):
    """A type that needs no declaration.

    @json-type: the type on the wire
    """

    json_type: JSONType


class SchemaInfoEnumMember(Struct):
    """A value of an enumeration.

    @name: the value
    @features: its features
    """

    name: str
    features: Features = None


class SchemaInfoEnum(SchemaInfo, tag="enum"):
    """An enumeration.

    @members: its values
    @values: the names of its values
    """

    members: Annotated[list[SchemaInfoEnumMember], Since("6.2")]
    values: Annotated[list[str], Deprecated("6.2")]


class SchemaInfoArray(SchemaInfo, tag="array"):
    """A list.

    @element-type: the type of its elements
    """

    element_type: str


class SchemaInfoObjectMember(Struct):
    """A member of an object.

    @name: its name
    @type: its type
    @default: its default, null for now; there if the member is optional
    @features: its features
    """

    name: str
    type: str
    default: Any = ABSENT
    features: Annotated[list[str] | None, Since("5.0")] = None


class SchemaInfoObjectVariant(Struct):
    """A case of a union.

    @case: the value of the tag
    @type: the type with the members of this case
    """

    case: str
    type: str


class SchemaInfoObject(SchemaInfo, tag="object"):
    """An object.

    @members: its members
    @tag: the member that tells which variant it is
    @variants: its variants
    """

    members: list[SchemaInfoObjectMember]
    tag_: str | None = None
    variants: list[SchemaInfoObjectVariant] | None = None


class SchemaInfoAlternateMember(Struct):
    """A choice of an alternate.

    @type: its type
    """

    type: str


class SchemaInfoAlternate(SchemaInfo, tag="alternate"):
    """Something that may be of several types.

    @members: the choices
    """

    members: list[SchemaInfoAlternateMember]


class SchemaInfoCommand(SchemaInfo, tag="command"):
    """A command.

    @arg-type: the type of its arguments
    @ret-type: the type of its reply
    @allow-oob: whether it may run out of band
    """

    arg_type: str
    ret_type: str
    allow_oob: Annotated[bool | None, Since("2.12")] = None


class SchemaInfoEvent(SchemaInfo, tag="event"):
    """An event.

    @arg-type: the type of its data
    """

    arg_type: str


AnySchemaInfo = Annotated[SchemaInfo, SCHEMA]
