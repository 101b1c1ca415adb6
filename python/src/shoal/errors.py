"""Every error Shoal raises on purpose: one class per reason, with the same names as in the daemon and its logs.

Made by generate_errors.py from docs/ERRORS.md; do not edit. Compare classes or `name`, never messages: a message says
what happened, to what, and what to do.
"""

from __future__ import annotations

import builtins
from typing import ClassVar


class ShoalError(Exception):
    """The base of them all, and the class of those that this version does not know by name."""

    _kind: ClassVar[str] = "failed"
    _retryable: ClassVar[bool] = False
    _fault: ClassVar[str] = "node"

    def __init__(
        self,
        message: str,
        *,
        name: str | None = None,
        kind: str | None = None,
        retryable: bool | None = None,
        fault: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        #: Stable; what docs/ERRORS.md lists.
        self.name = type(self).__name__ if name is None else name
        #: usage, not-found, verification, no-daemon, aborted or failed.
        self.kind = self._kind if kind is None else kind
        #: Whether the same call may succeed later.
        self.retryable = self._retryable if retryable is None else retryable
        #: Who has to act: caller, peer, network, disk or node.
        self.fault = self._fault if fault is None else fault

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_again, (type(self), self.message, self.name, self.kind, self.retryable, self.fault))


def _again(of: type[ShoalError], message: str, name: str, kind: str, retryable: bool, fault: str) -> ShoalError:
    return of(message, name=name, kind=kind, retryable=retryable, fault=fault)


class UsageError(ShoalError):
    """Arguments that make no sense together or alone. Read what the message names."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class ConfigError(ShoalError):
    """An unknown key, or a value of the wrong type or range, in flags, environment or a configuration file; an address that cannot be listened on. Mend the key it names; config/README.md lists them all."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class InvalidCidError(ShoalError):
    """Not a CID, or a CID of the wrong codec, hash or length for its place. Give the model CID that `shoal add` printed."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class InvalidInviteError(ShoalError):
    """An invite token that does not decode. Copy the whole token that `shoal invite` prints."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class InvalidPathError(ShoalError):
    """A path that no model can hold: see the path rules in model/path.ts. Rename the file it names."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class InvalidRepoNameError(ShoalError):
    """A repository name or revision that no Hugging Face client could ask for. Name it ORG/NAME, with a revision such as main or v1.0."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class EmptyModelError(ShoalError):
    """A model without a single file. Add a directory that holds files."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class SymbolicLinkError(ShoalError):
    """A symbolic link in what is being added, without `follow`. Add with `--follow`, or replace the link by the file."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class UnsupportedFileError(ShoalError):
    """A socket, device or pipe in what is being added. Move it out of the directory."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class UnreadableSourceError(ShoalError):
    """A source file that cannot be read. Let the daemon's user read it."""

    _kind = "failed"
    _retryable = True
    _fault = "caller"


class SourceChangedError(ShoalError):
    """A source file that changed while it was being added. Add again when nobody writes to it."""

    _kind = "failed"
    _retryable = True
    _fault = "caller"


class LimitExceededError(ShoalError):
    """Something is larger than the limit in base/limits.ts. Split it; the message names the limit."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class OutputExistsError(ShoalError):
    """The output of a load is there already and differs. Move it away, or choose another `--output`."""

    _kind = "failed"
    _retryable = False
    _fault = "caller"


class TensorNotFoundError(ShoalError):
    """A tensor name that the model does not have, or one it has more than once. `shoal show CID --tensors` lists them."""

    _kind = "not-found"
    _retryable = False
    _fault = "caller"


class FileNotFoundError(ShoalError, builtins.FileNotFoundError):
    """A file name that the model does not have. `shoal show CID` lists them."""

    _kind = "not-found"
    _retryable = False
    _fault = "caller"


class InvalidManifestError(ShoalError):
    """Bytes that are not a canonical manifest within the limits, or one whose file indexes are too large together. It was made by something broken; get another CID from its publisher."""

    _kind = "verification"
    _retryable = False
    _fault = "peer"


class InvalidFileIndexError(ShoalError):
    """Bytes that are not a canonical file index within the limits. It was made by something broken; get another CID from its publisher."""

    _kind = "verification"
    _retryable = False
    _fault = "peer"


class InvalidSafetensorsError(ShoalError):
    """A safetensors header that lies or is cut short. The file is damaged; get it again from where it came."""

    _kind = "verification"
    _retryable = False
    _fault = "caller"


class HashMismatchError(ShoalError):
    """Bytes that do not match their CID. Nothing: the bytes were thrown away and are fetched from elsewhere."""

    _kind = "verification"
    _retryable = False
    _fault = "peer"


class ModelNotFoundError(ShoalError):
    """This node does not hold the model. `shoal get CID` loads it."""

    _kind = "not-found"
    _retryable = False
    _fault = "caller"


class LinkNotFoundError(ShoalError):
    """No model is linked under this name here. `shoal links` lists the names; `shoal link ORG/NAME CID` makes one."""

    _kind = "not-found"
    _retryable = False
    _fault = "caller"


class RepoNotCachedError(ShoalError):
    """No Hugging Face client has downloaded the repository to this cache. Give the revision that was, or the cache with --cache-dir; `hf cache ls` lists them."""

    _kind = "not-found"
    _retryable = False
    _fault = "caller"


class NoProviderError(ShoalError):
    """No reachable peer has it; the message says how many were asked. Check the CID, and that a node which holds it is up and in this swarm."""

    _kind = "not-found"
    _retryable = True
    _fault = "network"


class StoreLockedError(ShoalError):
    """Another process works on this data directory. Stop the other daemon, or give this one another `--data`."""

    _kind = "failed"
    _retryable = True
    _fault = "caller"


class StoreVersionError(ShoalError):
    """The data directory was written by a newer version; or it is none, and somebody's files stand where Shoal's would. Use that version, or another `--data`."""

    _kind = "failed"
    _retryable = False
    _fault = "caller"


class OutOfSpaceError(ShoalError):
    """The disk is full. Nothing recorded is lost. Free space on the volume (`shoal rm CID`, or others' files); then run it again."""

    _kind = "failed"
    _retryable = True
    _fault = "disk"


class QuotaExceededError(ShoalError):
    """The quota would be exceeded and nothing evictable is left. Unpin or remove models, or raise `storage.quota`."""

    _kind = "failed"
    _retryable = True
    _fault = "caller"


class DiskError(ShoalError):
    """The operating system failed a read, write or sync. The cause holds its code. Look at the system log; check the drive."""

    _kind = "failed"
    _retryable = True
    _fault = "disk"


class StoreReadOnlyError(ShoalError):
    """The volume is read-only after a disk error; see status. `shoal status` says why; it recovers by itself when the cause is gone."""

    _kind = "failed"
    _retryable = True
    _fault = "disk"


class ModelInUseError(ShoalError):
    """A model that is being loaded or read cannot be removed. Wait for the load or reader to end (`shoal ps`), then run it again."""

    _kind = "failed"
    _retryable = True
    _fault = "caller"


class ProtocolError(ShoalError):
    """A peer broke the protocol: a malformed frame, an answer nobody asked for, a limit exceeded. Nothing: the peer is left. If many do it, compare versions."""

    _kind = "failed"
    _retryable = False
    _fault = "peer"


class PeerTimeoutError(ShoalError):
    """A peer did not answer in time. Nothing: others are asked. Check the network if all do it."""

    _kind = "failed"
    _retryable = True
    _fault = "peer"


class PeerGoneError(ShoalError):
    """The connection to a peer ended under an open request. Nothing: others are asked."""

    _kind = "failed"
    _retryable = True
    _fault = "network"


class SwarmKeyError(ShoalError):
    """The peer speaks with another swarm key, or none. Join with an invite of that swarm."""

    _kind = "failed"
    _retryable = False
    _fault = "peer"


class JoinFailedError(ShoalError):
    """None of the peers given to join could be reached. Check that those nodes run and can be reached."""

    _kind = "failed"
    _retryable = True
    _fault = "network"


class UpstreamError(ShoalError):
    """It could not be reached, broke off, or answered something that makes no sense. Check `hf.upstream` and the way there; what came is kept and gone on with."""

    _kind = "failed"
    _retryable = True
    _fault = "network"


class UpstreamTimeoutError(ShoalError):
    """It did not answer, or sent nothing, for too long. Ask again; what came is kept and gone on with."""

    _kind = "failed"
    _retryable = True
    _fault = "network"


class UpstreamMismatchError(ShoalError):
    """What it, or a peer, sent is not what it says that the file is. Nothing of it is published. Ask again. If it stays, tell who runs the upstream."""

    _kind = "verification"
    _retryable = True
    _fault = "network"


class UpstreamBusyError(ShoalError):
    """It has too much to do, and says when to ask again. Wait for so long."""

    _kind = "failed"
    _retryable = True
    _fault = "network"


class UpstreamRefusedError(ShoalError):
    """It refuses this caller, or has no such thing. Check name and revision; for a gated model, ask for access and send a token."""

    _kind = "not-found"
    _retryable = False
    _fault = "caller"


class DaemonUnreachableError(ShoalError):
    """No daemon listens on the socket. Start one with `shoal daemon`, or give the right `--data` or `--api`."""

    _kind = "no-daemon"
    _retryable = True
    _fault = "caller"


class ApiError(ShoalError):
    """The daemon answered with something this client does not understand. Use client and daemon of the same version."""

    _kind = "failed"
    _retryable = False
    _fault = "node"


class ApiSocketInUseError(ShoalError):
    """Another daemon listens on the socket path. Stop the other daemon, or give this one another `--api`."""

    _kind = "failed"
    _retryable = True
    _fault = "caller"


class ApiBusyError(ShoalError):
    """All connections that the API takes are open. Close programs that have models open, or try again when one has ended."""

    _kind = "failed"
    _retryable = True
    _fault = "caller"


class ApiTokenError(ShoalError):
    """A request over TCP without the token, or with a wrong one. Send `Authorization: Bearer` with what stands in the token file."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class HostNotAllowedError(ShoalError):
    """A request for a host name this daemon does not answer to: a sign of DNS rebinding. Use localhost, or list the name in `api.tcp.hosts`."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class CrossSiteRequestError(ShoalError):
    """A request that a web page of another origin made the browser send. Ask from a program, not from a web page."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class UnknownRouteError(ShoalError):
    """The API has no such path or method. `/v1/openapi.json` lists them."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class NodeStoppedError(ShoalError):
    """The node is stopping or stopped. Run it again when the daemon is back; what was done is kept."""

    _kind = "failed"
    _retryable = True
    _fault = "node"


class ModelClosedError(ShoalError):
    """A model opened through the loader was closed by its owner. Open it again."""

    _kind = "usage"
    _retryable = False
    _fault = "caller"


class AbortError(ShoalError):
    """The caller's signal aborted the call. Run it again to go on."""

    _kind = "aborted"
    _retryable = True
    _fault = "caller"


BY_NAME: dict[str, type[ShoalError]] = {
    "UsageError": UsageError,
    "ConfigError": ConfigError,
    "InvalidCidError": InvalidCidError,
    "InvalidInviteError": InvalidInviteError,
    "InvalidPathError": InvalidPathError,
    "InvalidRepoNameError": InvalidRepoNameError,
    "EmptyModelError": EmptyModelError,
    "SymbolicLinkError": SymbolicLinkError,
    "UnsupportedFileError": UnsupportedFileError,
    "UnreadableSourceError": UnreadableSourceError,
    "SourceChangedError": SourceChangedError,
    "LimitExceededError": LimitExceededError,
    "OutputExistsError": OutputExistsError,
    "TensorNotFoundError": TensorNotFoundError,
    "FileNotFoundError": FileNotFoundError,
    "InvalidManifestError": InvalidManifestError,
    "InvalidFileIndexError": InvalidFileIndexError,
    "InvalidSafetensorsError": InvalidSafetensorsError,
    "HashMismatchError": HashMismatchError,
    "ModelNotFoundError": ModelNotFoundError,
    "LinkNotFoundError": LinkNotFoundError,
    "RepoNotCachedError": RepoNotCachedError,
    "NoProviderError": NoProviderError,
    "StoreLockedError": StoreLockedError,
    "StoreVersionError": StoreVersionError,
    "OutOfSpaceError": OutOfSpaceError,
    "QuotaExceededError": QuotaExceededError,
    "DiskError": DiskError,
    "StoreReadOnlyError": StoreReadOnlyError,
    "ModelInUseError": ModelInUseError,
    "ProtocolError": ProtocolError,
    "PeerTimeoutError": PeerTimeoutError,
    "PeerGoneError": PeerGoneError,
    "SwarmKeyError": SwarmKeyError,
    "JoinFailedError": JoinFailedError,
    "UpstreamError": UpstreamError,
    "UpstreamTimeoutError": UpstreamTimeoutError,
    "UpstreamMismatchError": UpstreamMismatchError,
    "UpstreamBusyError": UpstreamBusyError,
    "UpstreamRefusedError": UpstreamRefusedError,
    "DaemonUnreachableError": DaemonUnreachableError,
    "ApiError": ApiError,
    "ApiSocketInUseError": ApiSocketInUseError,
    "ApiBusyError": ApiBusyError,
    "ApiTokenError": ApiTokenError,
    "HostNotAllowedError": HostNotAllowedError,
    "CrossSiteRequestError": CrossSiteRequestError,
    "UnknownRouteError": UnknownRouteError,
    "NodeStoppedError": NodeStoppedError,
    "ModelClosedError": ModelClosedError,
    "AbortError": AbortError,
}


def from_json(error: object) -> ShoalError:
    """An error that crossed the process boundary, made again under its class."""
    if isinstance(error, dict):
        name, message, kind = error.get("name"), error.get("message"), error.get("kind")
        if isinstance(name, str) and isinstance(message, str) and isinstance(kind, str):
            of = BY_NAME.get(name, ShoalError)
            fault = error.get("fault")
            return of(
                message,
                name=name,
                kind=kind,
                retryable=error.get("retryable") is True,
                fault=fault if isinstance(fault, str) else None,
            )
    return ApiError("the daemon failed without saying why; see its log")
