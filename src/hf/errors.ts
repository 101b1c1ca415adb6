import { ShoalError, UpstreamBusyError, UpstreamRefusedError, type ErrorJson } from '../base/index.ts'
import { errorJson, statusOf } from '../api/http-errors.ts'

/** What clients tell apart (huggingface_hub, utils/_http.py); other failures have a status and a message. */
export type HubErrorCode = 'RepoNotFound' | 'RevisionNotFound' | 'EntryNotFound' | 'GatedRepo' | 'DisabledRepo'

/** An answer that is an error, in the words of the Hub. */
export class HubError extends Error {
  override name = 'HubError'
  readonly status: number
  readonly code: HubErrorCode | undefined
  readonly headers: Record<string, string>

  constructor (status: number, message: string, init: { code?: HubErrorCode, headers?: Record<string, string>, cause?: unknown } = {}) {
    super(message, { cause: init.cause })
    this.status = status
    this.code = init.code
    this.headers = init.headers ?? {}
  }
}

const CODES: readonly HubErrorCode[] = ['RepoNotFound', 'RevisionNotFound', 'EntryNotFound', 'GatedRepo', 'DisabledRepo']

/** A model that nobody has now may come back, and an upstream too: clients then take what they have cached, and ask again later. */
const STATUS: Partial<Record<string, number>> = { NoProviderError: 504, UpstreamTimeoutError: 504, UpstreamError: 502, UpstreamMismatchError: 502 }

export function hubError (error: unknown): HubError {
  if (error instanceof HubError) return error
  if (error instanceof UpstreamRefusedError) return new HubError(error.status, error.message, { code: CODES.find(code => code === error.code), cause: error })
  if (error instanceof UpstreamBusyError) return new HubError(429, error.message, { headers: { 'retry-after': String(Math.ceil(error.retryAfterMs / 1_000)) }, cause: error })
  const json: ErrorJson = errorJson(error)
  const status = STATUS[json.name] ?? statusOf(json)
  return new HubError(status, error instanceof ShoalError ? json.message : 'the node failed unexpectedly; see its log', { cause: error })
}

/** Any text as the value of a header: ASCII alone, on one line. */
export function headerText (text: string): string {
  return text.slice(0, 1_000).replace(/[^\x20-\x7e]/g, '?')
}
