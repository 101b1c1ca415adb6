/**
 * The Hub, or a mirror of it, as a client: a few small questions, and files from any offset. The caller's token goes to
 * the upstream's own origin and nowhere else: not along redirects, not into messages.
 */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import {
  UPSTREAM_FETCHES_MAX, UPSTREAM_FILES_AT_ONCE, UPSTREAM_METADATA_BYTES_MAX, UPSTREAM_PASSED_MAX, UPSTREAM_REDIRECTS_MAX, UPSTREAM_SMALL_FETCHES_MAX, UpstreamBusyError, UpstreamError, UpstreamRefusedError, UpstreamTimeoutError,
  abortReason, asError, systemCode, throwIfAborted, type Clock
} from '../base/index.ts'
import { printable } from '../model/index.ts'
import type { Caller, OriginCounters, UpstreamFile, UpstreamModel } from './types.ts'
import { readModel } from './upstream-model.ts'
import { upstreamUrl } from './upstream-url.ts'

export interface UpstreamInit {
  /** `https://huggingface.co`, or a mirror; http:// is for one on the own network. */
  url: string
  userAgent: string
  clock: Clock
  counters: OriginCounters
}

/** `timeoutMs`: for the whole answer. Default METADATA_MS. */
export interface AskOptions { signal: AbortSignal, timeoutMs?: number }

interface Asked extends Caller {
  path: string
  method?: 'GET' | 'HEAD'
  headers?: Record<string, string>
  /** To the head of the answer, in all; of JSON to its end. */
  timeoutMs: number
  signal: AbortSignal
}

/** Clients give up after 10 s (huggingface_hub, constants.py), and have to be told before: all that is asked for one of their requests has this together. */
export const METADATA_MS = 8_000
const FILE_HEAD_MS = 30_000
/** A body that stands still for this long is cut off, and gone on with by a range. */
const STALL_MS = 30_000
/** Tried again after a pause that nobody named. */
const BUSY_MS = 5_000
const BUSY_MAX_MS = 3_600_000
const REDIRECTS = new Set([301, 302, 303, 307, 308])
/** Words of the Hub that clients tell apart (huggingface_hub, utils/_http.py). */
const CODES = new Set(['RepoNotFound', 'RevisionNotFound', 'EntryNotFound', 'GatedRepo', 'DisabledRepo'])
/** So that there are some for questions, whose callers give up after ten seconds, when all else runs that may. */
const SOCKETS_FOR_QUESTIONS = 8
/** Sockets to one host; requests beyond wait. */
const SOCKETS_MAX = (UPSTREAM_FETCHES_MAX + UPSTREAM_SMALL_FETCHES_MAX) * UPSTREAM_FILES_AT_ONCE + UPSTREAM_PASSED_MAX + SOCKETS_FOR_QUESTIONS

export class Upstream {
  readonly url: string
  readonly #init: UpstreamInit
  readonly #origin: string
  readonly #http = new HttpAgent({ keepAlive: true, maxSockets: SOCKETS_MAX })
  readonly #https = new HttpsAgent({ keepAlive: true, maxSockets: SOCKETS_MAX })

  constructor (init: UpstreamInit) {
    this.#init = init
    this.url = upstreamUrl(init.url)
    this.#origin = new URL(this.url).origin
  }

  stop (): void {
    this.#http.destroy()
    this.#https.destroy()
  }

  /** Throws UpstreamRefusedError, UpstreamBusyError, UpstreamError, UpstreamTimeoutError; InvalidPathError for files that no model can hold. */
  async model (repo: string, revision: string, caller: Caller, { timeoutMs = METADATA_MS, signal }: AskOptions): Promise<UpstreamModel> {
    const answer = await this.#json({ ...caller, path: `/api/models/${segments(repo)}/revision/${encodeURIComponent(revision)}?blobs=true`, timeoutMs, signal }, repo)
    return readModel(repo, answer)
  }

  /** Branches and tags, in the upstream's own words. */
  async refs (repo: string, caller: Caller, signal: AbortSignal): Promise<unknown> {
    return await this.#json({ ...caller, path: `/api/models/${segments(repo)}/refs`, timeoutMs: METADATA_MS, signal }, repo)
  }

  /** Resolves when the caller may have the files of this model. Throws UpstreamRefusedError otherwise. */
  async letIn ({ repo, commit, files }: UpstreamModel, caller: Caller, { timeoutMs = METADATA_MS, signal }: AskOptions): Promise<void> {
    const left = this.#deadline(timeoutMs)
    const ask = async (path: string, method: 'GET' | 'HEAD'): Promise<void> => {
      const answer = await this.#ask({ ...caller, method, path, timeoutMs: left(), signal }, repo)
      answer.destroy()
    }
    try {
      await ask(`/api/models/${segments(repo)}/auth-check`, 'GET')
    } catch (error) {
      // A mirror that knows no such question is asked for a file instead.
      const [file] = files
      if (!(error instanceof UpstreamRefusedError) || error.status !== 404 || error.code !== undefined || file === undefined) throw error
      await ask(fileAddress(repo, commit, file.path), 'HEAD')
    }
  }

  /**
   * The bytes of a file from `offset` to `end`, as they come. Where the upstream knows no ranges, from its first byte: `from` says
   * which. Throws as model(), and while reading UpstreamError and UpstreamTimeoutError.
   */
  async read ({ repo, commit }: UpstreamModel, file: UpstreamFile, range: { offset: number, end: number }, caller: Caller, signal: AbortSignal): Promise<{ from: number, body: AsyncGenerator<Buffer> }> {
    const { offset, end } = range
    const whole = offset === 0 && end === file.size
    const answer = await this.#ask({
      ...caller,
      path: fileAddress(repo, commit, file.path),
      headers: whole ? {} : { range: `bytes=${offset}-${end - 1}` },
      timeoutMs: FILE_HEAD_MS,
      signal
    }, repo)
    const from = answer.statusCode === 206 ? offset : 0
    const wrong = (what: string): UpstreamError => {
      answer.destroy()
      return new UpstreamError(`the upstream's answer for ${file.path} of ${repo} makes no sense: ${what}`)
    }
    if (answer.headers['content-encoding'] !== undefined && answer.headers['content-encoding'] !== 'identity') throw wrong(`it is encoded as ${scrubbed(answer.headers['content-encoding'], caller)}`)
    if (answer.statusCode === 206 && answer.headers['content-range'] !== `bytes ${offset}-${end - 1}/${file.size}`) throw wrong(`it has the range ${scrubbed(answer.headers['content-range'] ?? 'none', caller)}`)
    const length = answer.headers['content-length']
    if (length !== undefined && Number(length) !== (from === offset && answer.statusCode === 206 ? end - offset : file.size)) throw wrong(`it has ${scrubbed(length, caller)} bytes, and the file ${file.size}`)
    return { from, body: this.#body(answer, (from === 0 && answer.statusCode !== 206 ? file.size : end) - from, file.path, signal) }
  }

  /** Whole, or an error: what ends early or goes on too long is never taken for the end. */
  async * #body (answer: IncomingMessage, length: number, what: string, signal: AbortSignal): AsyncGenerator<Buffer> {
    const { clock, counters } = this.#init
    let late: UpstreamTimeoutError | undefined
    let cancel = (): void => undefined
    const watch = (): void => {
      cancel()
      cancel = clock.setTimeout(() => { answer.destroy(late = new UpstreamTimeoutError(`the upstream sent nothing of ${what} for ${STALL_MS / 1_000} s`)) }, STALL_MS)
    }
    const onAbort = (): void => { answer.destroy(abortReason(signal)) }
    signal.addEventListener('abort', onAbort, { once: true })
    let bytes = 0
    try {
      watch()
      for await (const chunk of answer) {
        const piece = chunk as Buffer
        cancel() // what is done with it is not the upstream's time
        bytes += piece.length
        counters.bytes += piece.length
        if (bytes > length) throw new UpstreamError(`the upstream sends more of ${what} than the ${length} bytes it has`)
        yield piece
        throwIfAborted(signal)
        watch()
      }
      if (bytes < length) throw new UpstreamError(`the upstream ended ${what} after ${bytes} of ${length} bytes`)
    } catch (error) {
      throwIfAborted(signal)
      throw late ?? (error instanceof UpstreamError ? error : new UpstreamError(`the upstream broke off ${what} after ${bytes} of ${length} bytes: ${asError(error).message}`, { cause: error }))
    } finally {
      cancel()
      signal.removeEventListener('abort', onAbort)
      answer.destroy()
    }
  }

  async #json (asked: Asked, repo: string): Promise<unknown> {
    const { clock, counters } = this.#init
    const left = this.#deadline(asked.timeoutMs)
    const answer = await this.#ask({ ...asked, headers: { accept: 'application/json' } }, repo)
    const cancel = clock.setTimeout(() => { answer.destroy(new UpstreamTimeoutError(`the upstream did not tell about ${repo} in ${seconds(asked.timeoutMs)}`)) }, left())
    const chunks: Buffer[] = []
    let bytes = 0
    try {
      for await (const chunk of answer) {
        const piece = chunk as Buffer
        bytes += piece.length
        counters.bytes += piece.length
        if (bytes > UPSTREAM_METADATA_BYTES_MAX) throw new UpstreamError(`the upstream tells more about ${repo} than ${UPSTREAM_METADATA_BYTES_MAX} bytes`)
        chunks.push(piece)
      }
      return JSON.parse(Buffer.concat(chunks).toString())
    } catch (error) {
      throwIfAborted(asked.signal)
      if (error instanceof UpstreamError || error instanceof UpstreamTimeoutError) throw error
      // Which quotes the answer, in pieces: a token that it repeats would not be found in them.
      if (error instanceof SyntaxError) throw new UpstreamError(`the upstream's answer about ${repo} could not be read: it is no JSON`)
      throw new UpstreamError(`the upstream's answer about ${repo} could not be read: ${asError(error).message}`, { cause: error })
    } finally {
      cancel()
      answer.destroy()
    }
  }

  /** What is left of so many ms from now on. */
  #deadline (timeoutMs: number): () => number {
    const { clock } = this.#init
    const until = clock.monotonic() + timeoutMs
    return () => Math.max(0, until - clock.monotonic())
  }

  /** The head of a good answer, after redirects. */
  async #ask (asked: Asked, repo: string): Promise<IncomingMessage> {
    const { counters, clock } = this.#init
    const late = new AbortController()
    const cancel = clock.setTimeout(() => { late.abort(new UpstreamTimeoutError(`the upstream ${this.url} did not answer about ${repo} in ${seconds(asked.timeoutMs)}`)) }, asked.timeoutMs)
    try {
      const answer = await this.#follow(asked, AbortSignal.any([asked.signal, late.signal]))
      const status = answer.statusCode ?? 0
      if (status === 200 || status === 206) {
        counters.requests.ok++
        return answer
      }
      answer.destroy()
      throw this.#refusal(answer, repo, asked)
    } catch (error) {
      throwIfAborted(asked.signal)
      const told = late.signal.aborted ? abortReason(late.signal) : asError(error)
      const known = told instanceof UpstreamError || told instanceof UpstreamTimeoutError || told instanceof UpstreamRefusedError || told instanceof UpstreamBusyError
      counters.requests[told instanceof UpstreamRefusedError ? 'refused' : told instanceof UpstreamBusyError ? 'busy' : 'failed']++
      throw known ? told : new UpstreamError(`the upstream ${this.url} cannot be reached: ${systemCode(error) ?? told.message}`, { cause: error })
    } finally {
      cancel()
    }
  }

  async #follow (asked: Asked, signal: AbortSignal): Promise<IncomingMessage> {
    let url = new URL(this.url + asked.path)
    for (let redirects = 0; ; redirects++) {
      const answer = await this.#send(url, asked, signal)
      const { location } = answer.headers
      if (!REDIRECTS.has(answer.statusCode ?? 0) || location === undefined) return answer
      answer.destroy()
      if (redirects === UPSTREAM_REDIRECTS_MAX) throw new UpstreamError(`the upstream ${this.url} redirects more than ${UPSTREAM_REDIRECTS_MAX} times`)
      const next = URL.canParse(location, url.href) ? new URL(location, url) : undefined
      const safe = next?.protocol === 'https:' || (next?.protocol === 'http:' && url.protocol === 'http:')
      if (next === undefined || !safe) throw new UpstreamError(`the upstream ${this.url} redirects to an address that is not followed`)
      url = next
    }
  }

  async #send (url: URL, { method = 'GET', headers, token }: Asked, signal: AbortSignal): Promise<IncomingMessage> {
    const secure = url.protocol === 'https:'
    return await new Promise((resolve, reject) => {
      const sent = (secure ? httpsRequest : httpRequest)(url, {
        method,
        agent: secure ? this.#https : this.#http,
        signal,
        headers: {
          'user-agent': this.#init.userAgent,
          // The bytes as they are: what is encoded cannot be gone on with.
          'accept-encoding': 'identity',
          ...headers,
          ...(token === undefined || url.origin !== this.#origin ? {} : { authorization: `Bearer ${token}` })
        }
      }, answer => {
        answer.on('error', () => undefined) // told to whoever reads it
        resolve(answer)
      })
      sent.on('error', reject)
      // A 101 is no answer to Node: the request would end without a word, and whoever waits for it would wait for good.
      sent.on('upgrade', (_answer, socket) => {
        socket.destroy()
        reject(new UpstreamError(`the upstream ${this.url} changes to another protocol, which nobody asked for`))
      })
      sent.on('close', () => { reject(new UpstreamError(`the upstream ${this.url} closed the connection without an answer`)) })
      sent.end()
    })
  }

  #refusal ({ statusCode: status = 0, headers }: IncomingMessage, repo: string, caller: Caller): Error {
    const given = String(headers['x-error-code'] ?? '')
    const code = CODES.has(given) ? given : undefined
    const words = headers['x-error-message']
    const message = `the upstream ${this.url} answers ${status}${code === undefined ? '' : ` (${code})`} for ${repo}${words === undefined ? '' : `: ${scrubbed(String(words), caller)}`}`
    if (status === 429) return new UpstreamBusyError(`${message}; it is asked again later`, { retryAfterMs: this.#pause(headers['retry-after']) })
    if ([401, 403, 404, 410, 451].includes(status)) return new UpstreamRefusedError(message, { status, code })
    return new UpstreamError(message)
  }

  /** Seconds, or a date (RFC 9110, 10.2.3). */
  #pause (text: string | undefined): number {
    if (text === undefined) return BUSY_MS
    const ms = /^\d{1,9}$/.test(text) ? Number(text) * 1_000 : Date.parse(text) - this.#init.clock.now()
    return Number.isNaN(ms) ? BUSY_MS : Math.min(BUSY_MAX_MS, Math.max(0, ms))
  }
}

/** Words of the upstream, which may repeat what it was sent. */
function scrubbed (words: string, { token }: Caller): string {
  return printable(token === undefined || token === '' ? words : words.replaceAll(token, '...'))
}

function seconds (ms: number): string {
  return `${Math.ceil(ms / 1_000)} s`
}

function segments (path: string): string {
  return path.split('/').map(encodeURIComponent).join('/')
}

function fileAddress (repo: string, commit: string, path: string): string {
  return `/${segments(repo)}/resolve/${commit}/${segments(path)}`
}
