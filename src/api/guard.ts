/**
 * Local daemons are attacked from browsers: a page can make a browser send requests to localhost, and by DNS rebinding
 * even read the answers. Shoal serves no pages, so nothing a page sends is wanted: a foreign Host, Origin or
 * Sec-Fetch-Site is refused, no CORS header is ever sent, and over TCP a token is needed besides.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import { ApiTokenError, CrossSiteRequestError, HostNotAllowedError } from '../base/index.ts'

export interface GuardInit {
  /** Needed as `Authorization: Bearer <token>`; undefined on the Unix socket, whose file mode decides who may. */
  token?: string
  /** Host names answered to besides the loopback ones. */
  hosts?: string[]
  /** Answer to the address a connection came in on as well. */
  ownAddress?: boolean
}

const LOOPBACK_HOSTS = ['localhost', '127.0.0.1', '[::1]']

/** Throws HostNotAllowedError, CrossSiteRequestError or ApiTokenError when the request is not to be served. */
export function guard (incoming: IncomingMessage, init: GuardInit): void {
  const { host, origin, authorization, 'sec-fetch-site': site } = incoming.headers
  const allowed = [...new Set([...LOOPBACK_HOSTS, ...(init.hosts ?? []).map(host => host.toLowerCase()), ...(init.ownAddress === true ? ownAddress(incoming) : [])])]
  if (host === undefined || !allowed.includes(hostName(host))) {
    throw new HostNotAllowedError(`this daemon does not answer to the host ${JSON.stringify(host ?? '')}; use one of ${allowed.join(', ')}`)
  }
  if (site !== undefined && site !== 'same-origin' && site !== 'none') {
    throw new CrossSiteRequestError('this request was sent by a web page of another site; the daemon serves programs, not pages')
  }
  if (origin !== undefined && origin !== `http://${host}`) {
    throw new CrossSiteRequestError(`this request was sent by a web page of ${JSON.stringify(origin.slice(0, 200))}; the daemon serves programs, not pages`)
  }
  if (init.token !== undefined && !sameToken(authorization, init.token)) {
    throw new ApiTokenError('over TCP the API needs its token: send the header "Authorization: Bearer TOKEN" with what stands in the token file')
  }
}

function hostName (host: string): string {
  return host.toLowerCase().replace(/:\d{1,5}$/, '')
}

function ownAddress ({ socket: { localAddress } }: IncomingMessage): string[] {
  if (localAddress === undefined) return []
  const address = localAddress.replace(/^::ffff:/, '')
  return [isIP(address) === 6 ? `[${address}]` : address]
}

/** Digests of equal length are compared, so neither the time nor the length tells how much was right. */
function sameToken (authorization: string | undefined, token: string): boolean {
  const given = /^Bearer (\S{1,1024})$/i.exec(authorization ?? '')?.[1] ?? ''
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(given), digest(token))
}
