/**
 * The client side of the API, over node:http and nothing else: an inference process imports it through the loader and
 * must not wait for a framework. Who owns what: each call owns its one connection and ends it when the call ends, so a
 * client has nothing to close. Answers come from the daemon of the same user and are taken at their type; what would
 * hurt a client even so (endless lines, wrong JSON, a daemon that dies half-way) is checked.
 */
import { request, type ClientRequest, type IncomingMessage } from 'node:http'
import {
  ApiBusyError, ApiError, DaemonUnreachableError, ShoalError, abortReason, asError, systemCode, throwIfAborted, type ErrorJson, type ErrorKind
} from '../base/errors.ts'
import { API_LINE_BYTES_MAX, API_RESPONSE_BYTES_MAX } from '../base/limits.ts'
import type { AbortOptions, ProgressOptions } from '../base/options.ts'
import type {
  AddOptions, AddProgress, AddResult, DrainOptions, DrainProgress, DrainResult, LoadOptions, LoadResult, ModelLink, ModelSummary, PeerStatus, PinOptions,
  ReplicationProgress, TransferStatus, Verification
} from '../node/types.ts'
import type { RepoName } from '../model/repo-name.ts'
import type { GcResult, RemoveResult, VerifyProgress } from '../storage/store.ts'
import { readLines } from './lines.ts'
import { checkSocketPath } from './paths.ts'
import type {
  AddMessage, DrainMessage, ErrorMessage, OpenMessage, PinResult, ReplicatedMessage, ReplicatedResult, ShownModel, ShownStatus, ShutdownResult, VerifyMessage, WaitRange
} from './types.ts'

/** A load that waits for its end. */
export type ClientLoadOptions = Omit<LoadOptions, 'onDemand' | 'reserve'>
/** On demand, room is made for what is waited for. */
export type OpenOptions = Omit<LoadOptions, 'onProgress' | 'reserve'>

export interface LoadHooks {
  onFiles?: (message: OpenMessage & { type: 'files' }) => void
  /** Runs when all is here and before the load is closed: until it ends the files are not evicted. */
  whileHeld?: (result: LoadResult) => Promise<void>
}

interface Call extends AbortOptions {
  method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  path: string
  body?: object | undefined
  /** The message after which it keeps its process alive no longer. */
  lastsUntil?: string
}

const KINDS: readonly ErrorKind[] = ['usage', 'not-found', 'verification', 'no-daemon', 'aborted', 'failed']
/** What connecting says where nobody listens. The head of an answer is waited for as long as the work takes: a daemon that accepts and is stuck is not ours to judge. */
const ABSENT = new Set(['ECONNREFUSED', 'ENOENT', 'ENOTSOCK', 'ENOTDIR', 'EPROTOTYPE'])

/**
 * Every method throws what the daemon threw, made again under its name, DaemonUnreachableError when no daemon listens or
 * it went away before the answer was complete, and ApiBusyError when too many programs want something of it.
 */
export class ApiClient {
  readonly socketPath: string
  readonly #start: string

  /** `start`: the command that starts a daemon there, for messages. */
  constructor (init: { socketPath: string, start?: string }) {
    checkSocketPath(init.socketPath)
    this.socketPath = init.socketPath
    this.#start = init.start ?? 'shoal daemon'
  }

  /** Adds a file or directory; `path` is absolute, as the daemon sees it. */
  async add (path: string, options: AddOptions = {}): Promise<AddResult> {
    const { inPlace, follow, followWithin, replicas, signal } = options
    return await this.#finish<AddMessage, AddProgress, AddResult>({ method: 'POST', path: '/v1/models', body: { path, inPlace, follow, followWithin, replicas }, signal }, options)
  }

  /**
   * Opens a model and loads what is missing. The load lasts as long as somebody iterates: leaving the loop, or aborting,
   * leaves the load; until then nothing of the model is evicted, after `done` either. What is over, or open on demand, keeps no process alive.
   */
  open (cid: string, options: OpenOptions = {}): AsyncIterable<OpenMessage> {
    const { include, order, onDemand, providerTimeoutMs, signal } = options
    return this.#stream<OpenMessage>({ method: 'POST', path: `${model(cid)}/load`, body: { include, order, onDemand, providerTimeoutMs, hold: true }, signal, lastsUntil: onDemand === true ? 'files' : 'done' })
  }

  /** Opens a model and waits for its end, and for that of `whileHeld`. */
  async load (cid: string, options: ClientLoadOptions & LoadHooks = {}): Promise<LoadResult> {
    const { include, order, providerTimeoutMs, signal, onFiles, whileHeld } = options
    const hold = whileHeld === undefined ? undefined : true
    for await (const message of this.#stream<OpenMessage>({ method: 'POST', path: `${model(cid)}/load`, body: { include, order, providerTimeoutMs, hold }, signal })) {
      if (message.type === 'files') onFiles?.(message)
      if (message.type === 'progress') options.onProgress?.(message.progress)
      if (message.type !== 'done') continue
      await whileHeld?.(message.result)
      return message.result
    }
    throw this.#gone(undefined)
  }

  /** Resolves when the range is verified and on disk; moves it to the front of the fetch. The model must be open or complete. */
  async wait (cid: string, range: WaitRange, options: AbortOptions = {}): Promise<void> {
    await this.#json({ method: 'POST', path: `${model(cid)}/wait`, body: range, signal: options.signal })
  }

  async models (options: AbortOptions = {}): Promise<ModelSummary[]> {
    return await this.#json({ method: 'GET', path: '/v1/models', signal: options.signal })
  }

  async show (cid: string, options: AbortOptions & { tensors?: boolean } = {}): Promise<ShownModel> {
    return await this.#json({ method: 'GET', path: `${model(cid)}?tensors=${options.tensors === true}`, signal: options.signal })
  }

  async remove (cid: string, options: AbortOptions = {}): Promise<RemoveResult & { replicas?: number }> {
    return await this.#json({ method: 'DELETE', path: model(cid), signal: options.signal })
  }

  /** Keeps a model here; with `replicas`, also changes how many the swarm keeps of a model that was published here. */
  async pin (cid: string, options: AbortOptions & PinOptions = {}): Promise<PinResult> {
    const { replicas, signal } = options
    return await this.#json({ method: 'PUT', path: `${model(cid)}/pin`, body: replicas === undefined ? undefined : { replicas }, signal })
  }

  async unpin (cid: string, options: AbortOptions = {}): Promise<PinResult> {
    return await this.#json({ method: 'DELETE', path: `${model(cid)}/pin`, signal: options.signal })
  }

  /** Resolves when every shard of the model has its target of proven replicas. */
  async replicated (cid: string, options: AbortOptions & ProgressOptions<ReplicationProgress> = {}): Promise<ReplicatedResult> {
    return await this.#finish<ReplicatedMessage, ReplicationProgress, ReplicatedResult>({ method: 'POST', path: `${model(cid)}/replicated`, signal: options.signal }, options)
  }

  /** Hands over everything the daemon promised to keep, and tells what was left at the deadline. */
  async drain (options: DrainOptions = {}): Promise<DrainResult> {
    const { deadlineMs, signal } = options
    return await this.#finish<DrainMessage, DrainProgress, DrainResult>({ method: 'POST', path: '/v1/drain', body: { deadlineMs }, signal }, options)
  }

  /** Re-hashes one model, or all that is held. */
  async verify (cid: string | undefined, options: AbortOptions & ProgressOptions<VerifyProgress> = {}): Promise<Verification> {
    return await this.#finish<VerifyMessage, VerifyProgress, Verification>({ method: 'POST', path: '/v1/verify', body: { cid }, signal: options.signal }, options)
  }

  async gc (options: AbortOptions & { dryRun?: boolean } = {}): Promise<GcResult> {
    return await this.#json({ method: 'POST', path: '/v1/gc', body: { dryRun: options.dryRun }, signal: options.signal })
  }

  /** Repository names that stand for models, by name. */
  async links (options: AbortOptions = {}): Promise<ModelLink[]> {
    return await this.#json({ method: 'GET', path: '/v1/links', signal: options.signal })
  }

  async link ({ repo, revision }: RepoName, cid: string, options: AbortOptions = {}): Promise<ModelLink> {
    return await this.#json({ method: 'PUT', path: '/v1/links', body: { repo, revision, cid }, signal: options.signal })
  }

  /** Tells what the name stood for. */
  async unlink ({ repo, revision }: RepoName, options: AbortOptions = {}): Promise<ModelLink> {
    return await this.#json({ method: 'DELETE', path: `/v1/links?${new URLSearchParams({ repo, revision }).toString()}`, signal: options.signal })
  }

  async transfers (options: AbortOptions = {}): Promise<TransferStatus[]> {
    return await this.#json({ method: 'GET', path: '/v1/transfers', signal: options.signal })
  }

  async peers (options: AbortOptions = {}): Promise<PeerStatus[]> {
    return await this.#json({ method: 'GET', path: '/v1/peers', signal: options.signal })
  }

  async status (options: AbortOptions = {}): Promise<ShownStatus> {
    return await this.#json({ method: 'GET', path: '/v1/status', signal: options.signal })
  }

  async invite (options: AbortOptions = {}): Promise<string> {
    const { invite } = await this.#json<{ invite: string }>({ method: 'GET', path: '/v1/invite', signal: options.signal })
    return invite
  }

  /** Connects the daemon to a peer by address and tells the peer's id. */
  async connect (multiaddr: string, options: AbortOptions = {}): Promise<string> {
    const { peerId } = await this.#json<{ peerId: string }>({ method: 'POST', path: '/v1/connect', body: { multiaddr }, signal: options.signal })
    return peerId
  }

  /** Asks the daemon to stop; resolves when it has taken the request. */
  async shutdown (options: AbortOptions = {}): Promise<ShutdownResult> {
    return await this.#json({ method: 'POST', path: '/v1/shutdown', signal: options.signal })
  }

  async #finish<Message extends { type: string }, Progress, Result> (
    call: Call, { onProgress }: ProgressOptions<Progress>
  ): Promise<Result> {
    for await (const message of this.#stream<Message>(call)) {
      if (message.type === 'done') return (message as unknown as { result: Result }).result
      if (message.type === 'progress') onProgress?.((message as unknown as { progress: Progress }).progress)
    }
    throw this.#gone(undefined)
  }

  /** The messages of a stream up to and with `done`. An `error` message is thrown. */
  async * #stream<Message extends { type: string }> (call: Call): AsyncGenerator<Message> {
    const { sent, answer } = await this.#send(call)
    try {
      for await (const line of readLines(this.#body(answer, call.signal), API_LINE_BYTES_MAX)) {
        const message = parse(line) as Message | ErrorMessage
        if (message.type === 'error') throw errorOf((message as ErrorMessage).error)
        if (message.type === call.lastsUntil) sent.socket?.unref()
        yield message as Message
        if (message.type === 'done') return
      }
      throw this.#gone(undefined)
    } finally {
      sent.destroy()
    }
  }

  async #json<Result> (call: Call): Promise<Result> {
    const { sent, answer } = await this.#send(call)
    try {
      return parse(await this.#text(answer, call.signal)) as Result
    } finally {
      sent.destroy()
    }
  }

  /** Resolves with the head of a good answer; an answer that is an error is thrown as one. */
  async #send ({ method, path, body, signal }: Call): Promise<{ sent: ClientRequest, answer: IncomingMessage }> {
    throwIfAborted(signal)
    const text = body === undefined ? undefined : JSON.stringify(body)
    const headers = text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }
    // One connection a call: connecting to a Unix socket costs less than finding out that a kept one has died.
    const sent = request({ socketPath: this.socketPath, method, path, headers: { host: 'localhost', ...headers }, agent: false, signal })
    const answer = await new Promise<IncomingMessage>((resolve, reject) => {
      sent.once('response', resolve)
      // Stays for the life of the request: an abort after the answer began tells it here as well.
      sent.on('error', error => { reject(signal?.aborted === true ? abortReason(signal) : this.#gone(error)) })
      sent.end(text)
    })
    const status = answer.statusCode ?? 0
    if (status >= 200 && status < 300) return { sent, answer }
    try {
      const { error } = parse(await this.#text(answer, signal)) as { error?: ErrorJson }
      throw errorOf(error)
    } finally {
      sent.destroy()
    }
  }

  async #text (answer: IncomingMessage, signal: AbortSignal | undefined): Promise<string> {
    const chunks: Buffer[] = []
    let bytes = 0
    for await (const chunk of this.#body(answer, signal)) {
      bytes += chunk.length
      if (bytes > API_RESPONSE_BYTES_MAX) throw new ApiError(`the answer of the daemon is larger than ${API_RESPONSE_BYTES_MAX} bytes`)
      chunks.push(chunk)
    }
    return Buffer.concat(chunks).toString()
  }

  /** The bytes of an answer; throws AbortError or DaemonUnreachableError when they end too early. */
  async * #body (answer: IncomingMessage, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
    try {
      for await (const chunk of answer) yield chunk as Buffer
    } catch (error) {
      throwIfAborted(signal)
      throw this.#gone(asError(error))
    }
  }

  #gone (error: Error | undefined): ShoalError {
    const code = systemCode(error)
    const cause = error === undefined ? undefined : { cause: error }
    if (code === 'EACCES' || code === 'EPERM') {
      return new DaemonUnreachableError(`no permission to use ${this.socketPath}; run as the user that started the daemon`, cause)
    }
    if (isAbsent(error)) {
      return new DaemonUnreachableError(`no daemon listens on ${this.socketPath}; start one with: ${this.#start}`, cause)
    }
    if (code === 'EAGAIN') return new ApiBusyError(`more programs wait for the daemon on ${this.socketPath} than its socket takes; try again`, cause)
    const why = error === undefined ? '' : ` (${code ?? error.message})`
    return new DaemonUnreachableError(`the daemon on ${this.socketPath} went away before it had answered${why}; see its log, and start it again with: ${this.#start}`, cause)
  }
}

/** No daemon listens there, as far as this error says: it is none of permission, nor of one that went away. */
export function isAbsent (error: unknown): boolean {
  return ABSENT.has(systemCode(error) ?? '')
}

function model (cid: string): string {
  return `/v1/models/${encodeURIComponent(cid)}`
}

function parse (text: string): object {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return value
  } catch (error) {
    throw new ApiError(`the daemon answered with something that is no JSON: ${JSON.stringify(text.slice(0, 100))}; is it of another version?`, { cause: error })
  }
  throw new ApiError(`the daemon answered with ${text.slice(0, 100)} where an object was due; is it of another version?`)
}

function errorOf (json: ErrorJson | undefined): ShoalError {
  if (typeof json?.name === 'string' && typeof json.message === 'string' && KINDS.includes(json.kind)) return ShoalError.fromJSON(json)
  return new ApiError('the daemon failed without saying why; see its log')
}
