import type { ContentfulStatusCode } from 'hono/utils/http-status'
import { ShoalError, asError, type ErrorJson } from '../base/index.ts'

/** Reasons whose status says more than their kind does. */
const BY_NAME: Record<string, ContentfulStatusCode> = {
  ApiTokenError: 401,
  HostNotAllowedError: 403,
  CrossSiteRequestError: 403,
  UnknownRouteError: 404,
  ModelInUseError: 409,
  StoreLockedError: 409,
  SourceChangedError: 409,
  LimitExceededError: 413,
  ApiBusyError: 503,
  NodeStoppedError: 503,
  PeerTimeoutError: 504,
  OutOfSpaceError: 507,
  QuotaExceededError: 507,
  StoreReadOnlyError: 507
}

export function statusOf (error: ErrorJson): ContentfulStatusCode {
  const named = BY_NAME[error.name]
  if (named !== undefined) return named
  if (error.kind === 'usage') return 400
  if (error.kind === 'not-found') return 404
  if (error.kind === 'verification') return 422
  if (error.kind === 'aborted') return 408
  if (error.fault === 'caller') return 400
  return error.fault === 'peer' || error.fault === 'network' ? 502 : 500
}

/** Errors of ours as they are; any other is a fault of the node, and its message helps whoever reports it. */
export function errorJson (thrown: unknown): ErrorJson {
  if (thrown instanceof ShoalError) return thrown.toJSON()
  const { message } = asError(thrown)
  return { name: 'InternalError', message: `the node failed unexpectedly: ${message}; see its log`, kind: 'failed', retryable: false, fault: 'node' }
}
