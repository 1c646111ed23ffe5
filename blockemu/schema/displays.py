"""Displays and what goes into them (qapi/ui.json)."""

from typing import Annotated

from blockemu.qmp_server.qapi import QEnum, Since, Struct, Union, Wire, values
from blockemu.schema.sockets import SOCKET, SocketAddress


class DisplayProtocol(QEnum):
    """A way to see a display from afar."""

    VNC = "vnc"
    SPICE = "spice"


class SetPasswordAction(QEnum):
    """What becomes of who is connected when the password changes."""

    KEEP = "keep"
    FAIL = "fail"
    DISCONNECT = "disconnect"


SET_PASSWORD = Union("SetPasswordOptions", "protocol")
EXPIRE_PASSWORD = Union("ExpirePasswordOptions", "protocol")


class SetPasswordOptions(Struct, union=SET_PASSWORD):
    """A new password.

    @password: the password
    @connected: what becomes of who is connected
    """

    password: str
    connected: SetPasswordAction | None = None


class SetPasswordOptionsVnc(SetPasswordOptions, tag="vnc"):
    """A new password of a VNC display.

    @display: its name
    """

    display: Annotated[str | None, Since("7.0")] = None


class SetPasswordOptionsSpice(SetPasswordOptions, tag="spice"):
    """A new password of SPICE."""


class ExpirePasswordOptions(Struct, union=EXPIRE_PASSWORD):
    """When a password ends.

    @time: ``now``, ``never``, ``+seconds`` or seconds
    """

    time: str


class ExpirePasswordOptionsVnc(ExpirePasswordOptions, tag="vnc"):
    """When the password of a VNC display ends.

    @display: its name
    """

    display: Annotated[str | None, Since("7.0")] = None


class ExpirePasswordOptionsSpice(ExpirePasswordOptions, tag="spice"):
    """When the password of SPICE ends."""


class DisplayReloadType(QEnum):
    """A display that can read its files again."""

    VNC = "vnc"


class DisplayUpdateType(QEnum):
    """A display that can be changed."""

    VNC = "vnc"


RELOAD = Union("DisplayReloadOptions", "type")
UPDATE = Union("DisplayUpdateOptions", "type")


class DisplayReloadOptions(Struct, union=RELOAD):
    """What to read again."""


class DisplayReloadOptionsVNC(DisplayReloadOptions, tag="vnc"):
    """What VNC is to read again.

    @tls-certs: certificates
    """

    tls_certs: bool | None = None


class DisplayUpdateOptions(Struct, union=UPDATE):
    """What to change."""


class DisplayUpdateOptionsVNC(DisplayUpdateOptions, tag="vnc"):
    """Where VNC is to listen.

    @addresses: the addresses
    """

    addresses: list[Annotated[SocketAddress, SOCKET]] | None = None


class NetworkAddressFamily(QEnum):
    """A kind of address."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"
    UNIX = "unix"
    VSOCK = "vsock"
    UNKNOWN = "unknown"


class VncPrimaryAuth(QEnum):
    """How a VNC client says who it is."""

    NONE = "none"
    VNC = "vnc"
    RA2 = "ra2"
    RA2NE = "ra2ne"
    TIGHT = "tight"
    ULTRA = "ultra"
    TLS = "tls"
    VENCRYPT = "vencrypt"
    SASL = "sasl"


class VncVencryptSubAuth(QEnum):
    """How it does within TLS."""

    PLAIN = "plain"
    TLS_NONE = "tls-none"
    X509_NONE = "x509-none"
    TLS_VNC = "tls-vnc"
    X509_VNC = "x509-vnc"
    TLS_PLAIN = "tls-plain"
    X509_PLAIN = "x509-plain"
    TLS_SASL = "tls-sasl"
    X509_SASL = "x509-sasl"


class VncBasicInfo(Struct):
    """One side of a connection.

    @host: its address
    @service: its port
    @family: the kind of address
    @websocket: whether it is a web socket
    """

    host: str
    service: str
    family: NetworkAddressFamily
    websocket: bool


class VncServerInfo2(VncBasicInfo):
    """Where a display listens.

    @auth: how clients say who they are
    @vencrypt: how they do within TLS
    """

    auth: VncPrimaryAuth
    vencrypt: VncVencryptSubAuth | None = None


class VncClientInfo(VncBasicInfo):
    """A client.

    @x509_dname: the name in its certificate
    @sasl_username: its user
    """

    x509_dname: Annotated[str | None, Wire("x509_dname")] = None
    sasl_username: Annotated[str | None, Wire("sasl_username")] = None


class VncInfo2(Struct):
    """A VNC display.

    @id: its name
    @server: where it listens
    @clients: who sees it
    @auth: how clients say who they are
    @vencrypt: how they do within TLS
    @display: the device that it shows
    """

    id: str
    server: list[VncServerInfo2]
    clients: list[VncClientInfo]
    auth: VncPrimaryAuth
    vencrypt: VncVencryptSubAuth | None = None
    display: str | None = None


@values(since={"png": "7.1"})
class ImageFormat(QEnum):
    """A format of pictures."""

    PPM = "ppm"
    PNG = "png"


_KEYS = """
unmapped shift shift_r alt alt_r ctrl ctrl_r menu esc 1 2 3 4 5 6 7 8 9 0 minus equal
backspace tab q w e r t y u i o p bracket_left bracket_right ret a s d f g h j k l semicolon
apostrophe grave_accent backslash z x c v b n m comma dot slash asterisk spc caps_lock f1 f2
f3 f4 f5 f6 f7 f8 f9 f10 num_lock scroll_lock kp_divide kp_multiply kp_subtract kp_add
kp_enter kp_decimal sysrq kp_0 kp_1 kp_2 kp_3 kp_4 kp_5 kp_6 kp_7 kp_8 kp_9 less f11 f12 print
home pgup pgdn end left up down right insert delete stop again props undo front copy open
paste find cut lf help meta_l meta_r compose pause ro hiragana henkan yen muhenkan
katakanahiragana kp_comma kp_equals power sleep wake audionext audioprev audiostop audioplay
audiomute volumeup volumedown mediaselect mail calculator computer ac_home ac_back ac_forward
ac_refresh ac_bookmarks lang1 lang2
"""


class QKeyCode(QEnum):
    """Keys."""

    vars().update((f"KEY_{name.upper()}", name) for name in _KEYS.split())


KEY = Union("KeyValue", "type")


class KeyValue(Struct, union=KEY):
    """A key."""


class IntWrapper(KeyValue, tag="number"):
    """A key by its number.

    @data: the number
    """

    data: int


class QKeyCodeWrapper(KeyValue, tag="qcode"):
    """A key by its name.

    @data: the name
    """

    data: QKeyCode


class InputButton(QEnum):
    """Buttons of a mouse."""

    LEFT = "left"
    MIDDLE = "middle"
    RIGHT = "right"
    WHEEL_UP = "wheel-up"
    WHEEL_DOWN = "wheel-down"
    SIDE = "side"
    EXTRA = "extra"
    WHEEL_LEFT = "wheel-left"
    WHEEL_RIGHT = "wheel-right"


class InputAxis(QEnum):
    """Directions."""

    X = "x"
    Y = "y"


class InputKeyEvent(Struct):
    """A key.

    @key: which
    @down: whether it goes down
    """

    key: Annotated[KeyValue, KEY]
    down: bool


class InputBtnEvent(Struct):
    """A button.

    @button: which
    @down: whether it goes down
    """

    button: InputButton
    down: bool


class InputMoveEvent(Struct):
    """A move.

    @axis: the direction
    @value: how far, or to where
    """

    axis: InputAxis
    value: int


INPUT = Union("InputEvent", "type")


class InputEvent(Struct, union=INPUT):
    """What somebody does with a keyboard or a mouse."""


class InputKeyEventWrapper(InputEvent, tag="key"):
    """A key.

    @data: which
    """

    data: InputKeyEvent


class InputBtnEventWrapper(InputEvent, tag="btn"):
    """A button.

    @data: which
    """

    data: InputBtnEvent


class InputRelEventWrapper(InputEvent, tag="rel"):
    """A move from where it was.

    @data: how far
    """

    data: InputMoveEvent


class InputAbsEventWrapper(InputEvent, tag="abs"):
    """A move to a place.

    @data: where to
    """

    data: InputMoveEvent


AnySetPassword = Annotated[SetPasswordOptions, SET_PASSWORD]
AnyExpirePassword = Annotated[ExpirePasswordOptions, EXPIRE_PASSWORD]
AnyReload = Annotated[DisplayReloadOptions, RELOAD]
AnyUpdate = Annotated[DisplayUpdateOptions, UPDATE]
AnyKey = Annotated[KeyValue, KEY]
AnyInput = Annotated[InputEvent, INPUT]


class DisplayGLMode(QEnum):
    """How a window is drawn."""

    OFF = "off"
    ON = "on"
    CORE = "core"
    ES = "es"


class HotKeyMod(QEnum):
    """The keys that let the mouse go."""

    LCTRL_LALT = "lctrl-lalt"
    LSHIFT_LCTRL_LALT = "lshift-lctrl-lalt"
    RCTRL = "rctrl"


DISPLAY = Union("DisplayOptions", "type")


class DisplayOptions(Struct, union=DISPLAY):
    """Where a machine's picture is seen.

    @full-screen: whether it takes all
    @window-close: whether the machine ends with its window
    @show-cursor: whether there are two pointers
    @gl: how it is drawn
    """

    full_screen: bool | None = None
    window_close: bool | None = None
    show_cursor: Annotated[bool | None, Since("5.0")] = None
    gl: DisplayGLMode | None = None


class DisplayDefault(DisplayOptions, tag="default"):
    """Wherever it can be."""


class DisplayNone(DisplayOptions, tag="none"):
    """Nowhere."""


class DisplayGTK(DisplayOptions, tag="gtk"):
    """In a window.

    @grab-on-hover: whether keys go to it when the mouse does
    @zoom-to-fit: whether it gets the window's size
    @show-tabs: whether there are tabs
    @show-menubar: whether there is a menu
    """

    grab_on_hover: bool | None = None
    zoom_to_fit: bool | None = None
    show_tabs: Annotated[bool | None, Since("7.1")] = None
    show_menubar: Annotated[bool | None, Since("7.2")] = None


class DisplaySDL(DisplayOptions, tag="sdl"):
    """In another kind of window.

    @grab-mod: the keys that let the mouse go
    """

    grab_mod: Annotated[HotKeyMod | None, Since("7.1")] = None


class DisplayEGLHeadless(DisplayOptions, tag="egl-headless"):
    """In a card's memory.

    @rendernode: the card
    """

    rendernode: str | None = None


class DisplayCurses(DisplayOptions, tag="curses"):
    """On a terminal.

    @charset: how the guest's text is coded
    """

    charset: Annotated[str | None, Since("4.0")] = None


class DisplaySpiceApp(DisplayOptions, tag="spice-app"):
    """In a program that is started for it."""


class DisplayDBus(DisplayOptions, tag="dbus", since="7.0"):
    """Where others ask for it.

    @rendernode: the card
    @addr: the bus
    @p2p: whether others are connected directly
    @audiodev: what is heard
    """

    rendernode: str | None = None
    addr: str | None = None
    p2p: bool | None = None
    audiodev: str | None = None


AnyDisplay = Annotated[DisplayOptions, DISPLAY]
