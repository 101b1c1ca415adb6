import { timingSafeEqual } from 'node:crypto'
import type { Socket } from 'node:net'
import { createSecureContext, createServer, type Server, type TLSSocket } from 'node:tls'
import { LANE_HANDSHAKE_MS, type Clock } from '../../base/index.ts'
import { fingerprintOf, type LaneCertificate } from './certificate.ts'
import type { LaneInput } from './lane-socket.ts'
import { LANE_ALPN, encodeHello, encodeWelcome } from './messages.ts'
import type { Ticket } from './tickets.ts'
import { tlsOptions } from './tls-options.ts'

/** A peer that vanished is noticed by TCP after about a minute more than this. */
const KEEP_ALIVE_MS = 30_000

/** Who knows the tickets: this thread's, or the main one. */
export interface TicketOffice {
  /** True for the first who comes with this name in time. */
  claim: (name: string) => boolean | Promise<boolean>
  /** The ticket that was claimed under this name; it is gone then. */
  take: (name: string) => Ticket | undefined | Promise<Ticket | undefined>
}

export interface LaneDoorInit {
  clock: Clock
  certificate: LaneCertificate
  /** Places for those that have shown no ticket. */
  pendingMax: number
  office: TicketOffice
  /** Somebody showed this ticket. Where the socket's bytes go from now on; undefined: away with it. */
  enter: (ticket: Ticket, socket: TLSSocket) => LaneInput | undefined
}

/**
 * Where lanes come in. Between a stranger and a lane stand, in the order of what they cost: a place among the few that
 * have shown nothing yet, a ticket's name in the first TLS message (without one there is no certificate to
 * negotiate with, and the handshake ends before any signature), the certificate that the ticket was made out for, and
 * the ticket's secret.
 */
export class LaneDoor {
  readonly #init: LaneDoorInit
  readonly #servers: Server[] = []
  /** Connections that have not shown a ticket, longest waiting first. */
  readonly #pending = new Map<string, { socket: Socket, forget: () => void }>()

  constructor (init: LaneDoorInit) {
    this.#init = init
  }

  get pending (): number { return this.#pending.size }

  /** Returns the port. `reusePort`: several threads listen on the same. Throws what listening throws. */
  async listen (host: string, port: number, reusePort = false): Promise<number> {
    const server = this.#server()
    // `::` would take the port for IPv4 too, where 0.0.0.0 may have it already.
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ host, port, ipv6Only: host.includes(':'), ...(reusePort ? { reusePort } : {}) }, () => {
        server.off('error', reject)
        server.on('error', () => undefined) // of a single connection's accept (EMFILE): the next one may do
        resolve()
      })
    })
    this.#servers.push(server)
    const address = server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  /** Those that are through the door are not its own any more, and stay. Resolves when they have ended, too. */
  async close (): Promise<void> {
    const closing = this.#servers.splice(0).map(async server => { await new Promise<void>(resolve => { server.close(() => { resolve() }) }) })
    for (const { socket, forget } of this.#pending.values()) {
      forget()
      socket.destroy()
    }
    await Promise.all(closing)
  }

  #server (): Server {
    const { certificate, office } = this.#init
    const context = createSecureContext({ ...tlsOptions, key: certificate.key, cert: certificate.cert })
    const server = createServer({
      ...tlsOptions,
      ALPNProtocols: [LANE_ALPN],
      requestCert: true,
      // There is no authority to ask: the fingerprint is compared instead.
      rejectUnauthorized: false,
      handshakeTimeout: LANE_HANDSHAKE_MS,
      SNICallback: (name, answer) => {
        const tell = (isClaimed: boolean): void => {
          if (isClaimed) answer(null, context)
          else answer(new Error('not a ticket'))
        }
        const claimed = office.claim(name)
        if (typeof claimed === 'boolean') tell(claimed)
        else claimed.then(tell, () => { tell(false) })
      }
    })
    server.on('connection', (socket: Socket) => { this.#arrived(socket) })
    server.on('secureConnection', (socket: TLSSocket) => { void this.#secured(socket) })
    // A stranger's bad handshake is not worth a word; the socket is destroyed by then.
    server.on('tlsClientError', (_error, socket) => { socket.destroy() })
    return server
  }

  #arrived (socket: Socket): void {
    const { clock, pendingMax } = this.#init
    const key = endsOf(socket)
    // One that was reset, and whose end is still to be told, may have had the same ends; else the longest waiting one goes when they are too many.
    const [other] = this.#pending.has(key) || this.#pending.size < pendingMax ? [this.#pending.get(key)] : this.#pending.values()
    other?.forget()
    other?.socket.destroy()
    const cancel = clock.setTimeout(() => { socket.destroy() }, LANE_HANDSHAKE_MS)
    const forget = (): void => {
      cancel()
      this.#pending.delete(key)
      socket.off('close', forget)
    }
    socket.on('close', forget)
    socket.on('error', () => { socket.destroy() })
    this.#pending.set(key, { socket, forget })
  }

  /** TLS stands: the secret must come next, and nothing else before the answer. Never rejects. */
  async #secured (socket: TLSSocket): Promise<void> {
    socket.on('error', () => { socket.destroy() })
    const raw = socket.getPeerX509Certificate()?.raw
    const found = typeof socket.servername === 'string' ? this.#init.office.take(socket.servername) : undefined
    const ticket = found instanceof Promise ? await found.catch(() => undefined) : found
    if (ticket === undefined || socket.alpnProtocol !== LANE_ALPN || raw === undefined || !timingSafeEqual(fingerprintOf(raw), ticket.fingerprint)) {
      socket.destroy()
      return
    }
    socket.setNoDelay(true)
    const hello = encodeHello(ticket.secret)
    let said = Buffer.alloc(0)
    let input: LaneInput = {
      take: (memory, length) => {
        said = Buffer.concat([said, memory.subarray(0, length)])
        if (said.length < hello.length) return true
        const lane = said.length === hello.length && timingSafeEqual(said, hello) ? this.#welcome(socket, ticket) : undefined
        if (lane === undefined) socket.destroy()
        else input = lane
        return true
      }
    }
    socket.on('data', (chunk: Uint8Array) => { if (!input.take(chunk, chunk.length)) socket.pause() })
  }

  #welcome (socket: TLSSocket, ticket: Ticket): LaneInput | undefined {
    this.#pending.get(endsOf(socket))?.forget()
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    socket.write(encodeWelcome())
    return this.#init.enter(ticket, socket)
  }
}

/** Names a connection while it lives; TLS has no other way back to the socket under it. */
function endsOf ({ localAddress, remoteAddress, remotePort }: Socket): string {
  return `${localAddress} ${remoteAddress} ${remotePort}`
}
