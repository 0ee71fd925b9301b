"""Every message and enum of the wire contract `sedma.v1` under one roof; generated, see scripts/gen_proto."""

from sedmad.wire.generated.sedma.v1.certificate_pb2 import *  # noqa: F403
from sedmad.wire.generated.sedma.v1.control_pb2 import *  # noqa: F403
from sedmad.wire.generated.sedma.v1.frame_pb2 import *  # noqa: F403
from sedmad.wire.generated.sedma.v1.holding_pb2 import *  # noqa: F403
from sedmad.wire.generated.sedma.v1.manifest_pb2 import *  # noqa: F403
from sedmad.wire.generated.sedma.v1.membership_pb2 import *  # noqa: F403
from sedmad.wire.generated.sedma.v1.product_pb2 import *  # noqa: F403
from sedmad.wire.generated.sedma.v1.session_pb2 import *  # noqa: F403
