/**
 * Every error Shoal raises on purpose. One class per reason, with a stable `name` that tests and callers compare.
 * The message says what happened, to what, and what to do about it. `kind` decides the exit code of the command line,
 * `retryable` whether the same call may succeed later, `fault` who has to act.
 */
export type ErrorKind = 'usage' | 'not-found' | 'verification' | 'no-daemon' | 'aborted' | 'failed'
export type Fault = 'caller' | 'peer' | 'network' | 'disk' | 'node'

export interface ErrorJson {
  name: string
  message: string
  kind: ErrorKind
  retryable: boolean
  fault: Fault
}

interface Traits { kind: ErrorKind, retryable: boolean, fault: Fault }

export class ShoalError extends Error {
  readonly kind: ErrorKind
  readonly retryable: boolean
  readonly fault: Fault

  constructor (name: string, message: string, traits: Traits, options?: ErrorOptions) {
    super(message, options)
    this.name = name
    this.kind = traits.kind
    this.retryable = traits.retryable
    this.fault = traits.fault
  }

  toJSON (): ErrorJson {
    return { name: this.name, message: this.message, kind: this.kind, retryable: this.retryable, fault: this.fault }
  }

  /** An error that crossed a process boundary keeps its name, kind and message. */
  static fromJSON (json: ErrorJson): ShoalError {
    return new ShoalError(json.name, json.message, json)
  }
}

/** Makes the class for one reason: `class X extends reason('X', 'usage', false, 'caller') {}`. */
function reason (name: string, kind: ErrorKind, retryable: boolean, fault: Fault): new (message: string, options?: ErrorOptions) => ShoalError {
  return class extends ShoalError {
    constructor (message: string, options?: ErrorOptions) {
      super(name, message, { kind, retryable, fault }, options)
    }
  }
}

// What the caller gave.
/** Arguments that make no sense together or alone. */
export class UsageError extends reason('UsageError', 'usage', false, 'caller') {}
/** An unknown key, or a value of the wrong type or range, in flags, environment or a configuration file; an address that cannot be listened on. */
export class ConfigError extends reason('ConfigError', 'usage', false, 'caller') {}
/** Not a CID, or a CID of the wrong codec, hash or length for its place. */
export class InvalidCidError extends reason('InvalidCidError', 'usage', false, 'caller') {}
/** An invite token that does not decode. */
export class InvalidInviteError extends reason('InvalidInviteError', 'usage', false, 'caller') {}
/** A path that no model can hold: see the path rules in model/path.ts. */
export class InvalidPathError extends reason('InvalidPathError', 'usage', false, 'caller') {}
/** A repository name or revision that no Hugging Face client could ask for: see model/repo-name.ts. */
export class InvalidRepoNameError extends reason('InvalidRepoNameError', 'usage', false, 'caller') {}
/** A model without a single file. */
export class EmptyModelError extends reason('EmptyModelError', 'usage', false, 'caller') {}
/** A symbolic link in what is being added, without `follow`. */
export class SymbolicLinkError extends reason('SymbolicLinkError', 'usage', false, 'caller') {}
/** A socket, device or pipe in what is being added. */
export class UnsupportedFileError extends reason('UnsupportedFileError', 'usage', false, 'caller') {}
/** A source file that cannot be read. */
export class UnreadableSourceError extends reason('UnreadableSourceError', 'failed', true, 'caller') {}
/** A source file that changed while it was being added. */
export class SourceChangedError extends reason('SourceChangedError', 'failed', true, 'caller') {}
/** Something is larger than the limit in base/limits.ts. */
export class LimitExceededError extends reason('LimitExceededError', 'usage', false, 'caller') {}
/** The output of a load is there already and differs. */
export class OutputExistsError extends reason('OutputExistsError', 'failed', false, 'caller') {}
/** A tensor name that the model does not have, or one it has more than once. */
export class TensorNotFoundError extends reason('TensorNotFoundError', 'not-found', false, 'caller') {}
/** A file name that the model does not have. */
export class FileNotFoundError extends reason('FileNotFoundError', 'not-found', false, 'caller') {}

// What was read.
/** Bytes that are not a canonical manifest within the limits, or one whose file indexes are too large together. */
export class InvalidManifestError extends reason('InvalidManifestError', 'verification', false, 'peer') {}
/** Bytes that are not a canonical file index within the limits. */
export class InvalidFileIndexError extends reason('InvalidFileIndexError', 'verification', false, 'peer') {}
/** A safetensors header that lies or is cut short. */
export class InvalidSafetensorsError extends reason('InvalidSafetensorsError', 'verification', false, 'caller') {}
/** Bytes that do not match their CID. */
export class HashMismatchError extends reason('HashMismatchError', 'verification', false, 'peer') {}

// What is not there.
/** This node does not hold the model. */
export class ModelNotFoundError extends reason('ModelNotFoundError', 'not-found', false, 'caller') {}
/** No model is linked under this name here. */
export class LinkNotFoundError extends reason('LinkNotFoundError', 'not-found', false, 'caller') {}
/** No Hugging Face client has downloaded it to this cache. */
export class RepoNotCachedError extends reason('RepoNotCachedError', 'not-found', false, 'caller') {}
/** No reachable peer has it; the message says how many were asked. */
export class NoProviderError extends reason('NoProviderError', 'not-found', true, 'network') {}

// Disk.
/** Another process works on this data directory. */
export class StoreLockedError extends reason('StoreLockedError', 'failed', true, 'caller') {}
/** The data directory was written by a newer version. */
export class StoreVersionError extends reason('StoreVersionError', 'failed', false, 'caller') {}
/** The disk is full. Nothing recorded is lost. */
export class OutOfSpaceError extends reason('OutOfSpaceError', 'failed', true, 'disk') {}
/** The quota would be exceeded and nothing evictable is left. */
export class QuotaExceededError extends reason('QuotaExceededError', 'failed', true, 'caller') {}
/** The operating system failed a read, write or sync. The cause holds its code. */
export class DiskError extends reason('DiskError', 'failed', true, 'disk') {}
/** The volume is read-only after a disk error; see status. */
export class StoreReadOnlyError extends reason('StoreReadOnlyError', 'failed', true, 'disk') {}
/** A model that is being loaded or read cannot be removed. */
export class ModelInUseError extends reason('ModelInUseError', 'failed', true, 'caller') {}

// Peers and the network.
/** A peer broke the protocol: a malformed frame, an answer nobody asked for, a limit exceeded. */
export class ProtocolError extends reason('ProtocolError', 'failed', false, 'peer') {}
/** A peer did not answer in time. */
export class PeerTimeoutError extends reason('PeerTimeoutError', 'failed', true, 'peer') {}
/** The connection to a peer ended under an open request. */
export class PeerGoneError extends reason('PeerGoneError', 'failed', true, 'network') {}
/** The peer speaks with another swarm key, or none. */
export class SwarmKeyError extends reason('SwarmKeyError', 'failed', false, 'peer') {}
/** None of the peers given to join could be reached. */
export class JoinFailedError extends reason('JoinFailedError', 'failed', true, 'network') {}

// The Hub that a node fetches from when the swarm lacks a model.
/** It could not be reached, broke off, or answered something that makes no sense. */
export class UpstreamError extends reason('UpstreamError', 'failed', true, 'network') {}
/** It did not answer, or sent nothing, for too long. */
export class UpstreamTimeoutError extends reason('UpstreamTimeoutError', 'failed', true, 'network') {}
/** What it, or a peer, sent is not what it says that the file is. Nothing of it is published. */
export class UpstreamMismatchError extends reason('UpstreamMismatchError', 'verification', true, 'network') {}

/** It has too much to do, and says when to ask again. */
export class UpstreamBusyError extends reason('UpstreamBusyError', 'failed', true, 'network') {
  readonly retryAfterMs: number

  constructor (message: string, init: ErrorOptions & { retryAfterMs?: number } = {}) {
    super(message, init)
    this.retryAfterMs = init.retryAfterMs ?? 0
  }
}

/** It refuses this caller, or has no such thing: the answer is the caller's, as it is. */
export class UpstreamRefusedError extends reason('UpstreamRefusedError', 'not-found', false, 'caller') {
  /** 4xx. */
  readonly status: number
  /** In the words of the Hub: RepoNotFound, GatedRepo and others. */
  readonly code: string | undefined

  constructor (message: string, init: ErrorOptions & { status?: number, code?: string | undefined } = {}) {
    super(message, init)
    this.status = init.status ?? 404
    this.code = init.code
  }
}

// The process boundary.
/** No daemon listens on the socket. */
export class DaemonUnreachableError extends reason('DaemonUnreachableError', 'no-daemon', true, 'caller') {}
/** The daemon answered with something this client does not understand. */
export class ApiError extends reason('ApiError', 'failed', false, 'node') {}
/** Another daemon listens on the socket path. */
export class ApiSocketInUseError extends reason('ApiSocketInUseError', 'failed', true, 'caller') {}
/** All connections that the API takes are open. */
export class ApiBusyError extends reason('ApiBusyError', 'failed', true, 'caller') {}
/** A request over TCP without the token, or with a wrong one. */
export class ApiTokenError extends reason('ApiTokenError', 'usage', false, 'caller') {}
/** A request for a host name this daemon does not answer to: a sign of DNS rebinding. */
export class HostNotAllowedError extends reason('HostNotAllowedError', 'usage', false, 'caller') {}
/** A request that a web page of another origin made the browser send. */
export class CrossSiteRequestError extends reason('CrossSiteRequestError', 'usage', false, 'caller') {}
/** The API has no such path or method. */
export class UnknownRouteError extends reason('UnknownRouteError', 'usage', false, 'caller') {}
/** The node is stopping or stopped. */
export class NodeStoppedError extends reason('NodeStoppedError', 'failed', true, 'node') {}
/** A model opened through the loader was closed by its owner. */
export class ModelClosedError extends reason('ModelClosedError', 'usage', false, 'caller') {}
/** The caller's signal aborted the call. */
export class AbortError extends reason('AbortError', 'aborted', true, 'caller') {}

/** The `code` of a Node system error, if it is one. */
export function systemCode (error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code
  return undefined
}

/** Whatever was thrown, as an Error. */
export function asError (thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown))
}

/** Throws AbortError if the signal has fired; its reason, when an Error of ours, is thrown as it is. */
export function throwIfAborted (signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortReason(signal)
}

export function abortReason (signal: AbortSignal): ShoalError {
  if (signal.reason instanceof ShoalError) return signal.reason
  return new AbortError('the call was aborted', { cause: signal.reason })
}

/** Waits for shared work under one's own signal: leaving does not end it. */
export async function withSignal<T> (work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return await work
  work.catch(() => undefined) // it may fail when nobody waits any more
  throwIfAborted(signal)
  let off = (): void => undefined
  const aborted = new Promise<never>((_resolve, reject) => {
    const onAbort = (): void => { reject(abortReason(signal)) }
    signal.addEventListener('abort', onAbort, { once: true })
    off = () => { signal.removeEventListener('abort', onAbort) }
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    off()
  }
}
