import { timingSafeEqual } from 'node:crypto'
import type { Socket } from 'node:net'
import { createSecureContext, createServer, type Server, type TLSSocket } from 'node:tls'
import { LANES_PENDING_MAX, LANE_HANDSHAKE_MS, LANE_TICKET_MS, asError, systemCode, type Clock, type Logger, type Random } from '../../base/index.ts'
import type { OpenFrames } from '../frame-stream.ts'
import { fingerprintOf, type LaneCertificate } from './certificate.ts'
import { LaneStream, type LaneInput, type LaneShared } from './lane-stream.ts'
import { LANE_ALPN, encodeHello, encodeWelcome, type LaneOffer } from './messages.ts'
import { Tickets, type Ticket } from './tickets.ts'
import { tlsOptions } from './tls-options.ts'

export interface LaneServerComponents { clock: Clock, random: Random, logger: Logger, certificate: LaneCertificate, shared: LaneShared }

export interface LaneServerInit {
  /** Addresses to listen on, all with one port. */
  hosts: string[]
  /** 0: any free one. One that is taken: any free one, too. */
  port: number
}

/** A peer that vanished is noticed by TCP after about a minute more than this. */
const KEEP_ALIVE_MS = 30_000

/** Takes over a lane that speaks for `peerId`; false when it has too many. */
export type AcceptLane = (peerId: string, open: OpenFrames) => boolean

/**
 * Where lanes come in. Between a stranger and a lane stand, in the order of what they cost: a place among the few that
 * have shown nothing yet, a ticket's name in the first TLS message (without one there is no certificate to
 * negotiate with, and the handshake ends before any signature), the certificate that the ticket was made out for, and
 * the ticket's secret.
 */
export class LaneServer {
  readonly #components: LaneServerComponents
  readonly #init: LaneServerInit
  readonly #accept: AcceptLane
  readonly #tickets: Tickets
  readonly #servers: Server[] = []
  /** Connections that have not shown a ticket, longest waiting first. */
  readonly #pending = new Map<string, { socket: Socket, forget: () => void }>()
  readonly #lanes = new Map<string, Set<TLSSocket>>()
  #port = 0

  constructor (components: LaneServerComponents, init: LaneServerInit, accept: AcceptLane) {
    this.#components = components
    this.#init = init
    this.#accept = accept
    this.#tickets = new Tickets(components.clock, components.random)
  }

  /** 0 before start(), and when no address could be listened on. */
  get port (): number { return this.#port }
  get pending (): number { return this.#pending.size }
  get tickets (): number { return this.#tickets.size }
  get lanes (): number {
    let lanes = 0
    for (const sockets of this.#lanes.values()) lanes += sockets.size
    return lanes
  }

  /** Never throws: a node without lanes serves over streams. */
  async start (): Promise<void> {
    const { logger } = this.#components
    for (const host of this.#init.hosts) {
      for (const port of this.#port > 0 ? [this.#port] : new Set([this.#init.port, 0])) {
        const server = this.#server()
        try {
          await listen(server, host, port)
        } catch (error) {
          const isLast = port === 0 || this.#port > 0
          logger.warn({ host, port, error: asError(error).message }, isLast ? 'lanes cannot listen here' : 'the lane port is taken; any free one will do')
          if (isLast || systemCode(error) !== 'EADDRINUSE') break
          continue
        }
        this.#servers.push(server)
        const address = server.address()
        if (typeof address === 'object' && address !== null) this.#port = address.port
        break
      }
    }
  }

  async stop (): Promise<void> {
    const closing = this.#servers.splice(0).map(async server => { await new Promise<void>(resolve => { server.close(() => { resolve() }) }) })
    for (const { socket, forget } of this.#pending.values()) {
      forget()
      socket.destroy()
    }
    for (const sockets of this.#lanes.values()) for (const socket of sockets) socket.destroy()
    this.#port = 0
    await Promise.all(closing)
  }

  /** A lane for `peerId`, which will show a certificate with this fingerprint. Undefined when this node has none to offer. */
  offer (peerId: string, fingerprint: Uint8Array): LaneOffer | undefined {
    if (this.#port === 0) return undefined
    const { name, secret } = this.#tickets.issue(peerId, fingerprint)
    return { port: this.#port, fingerprint: this.#components.certificate.fingerprint, name, secret, ttlMs: LANE_TICKET_MS }
  }

  /** Ends the lanes of a peer, and its tickets. */
  drop (peerId: string): void {
    this.#tickets.forget(peerId)
    for (const socket of this.#lanes.get(peerId) ?? []) socket.destroy()
  }

  #server (): Server {
    const { certificate } = this.#components
    const context = createSecureContext({ ...tlsOptions, key: certificate.key, cert: certificate.cert })
    const server = createServer({
      ...tlsOptions,
      ALPNProtocols: [LANE_ALPN],
      requestCert: true,
      // There is no authority to ask: the fingerprint is compared instead.
      rejectUnauthorized: false,
      handshakeTimeout: LANE_HANDSHAKE_MS,
      SNICallback: (name, answer) => {
        if (this.#tickets.claim(name)) answer(null, context)
        else answer(new Error('not a ticket'))
      }
    })
    server.on('connection', (socket: Socket) => { this.#arrived(socket) })
    server.on('secureConnection', (socket: TLSSocket) => { this.#secured(socket) })
    // A stranger's bad handshake is not worth a word; the socket is destroyed by then.
    server.on('tlsClientError', (_error, socket) => { socket.destroy() })
    return server
  }

  #arrived (socket: Socket): void {
    const { clock } = this.#components
    const [longest] = this.#pending.size >= LANES_PENDING_MAX ? this.#pending.values() : []
    longest?.forget()
    longest?.socket.destroy()
    const key = endsOf(socket)
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

  /** TLS stands: the secret must come next, and nothing else before the answer. */
  #secured (socket: TLSSocket): void {
    const ticket = typeof socket.servername === 'string' ? this.#tickets.take(socket.servername) : undefined
    const raw = socket.getPeerX509Certificate()?.raw
    socket.on('error', () => { socket.destroy() })
    if (ticket === undefined || socket.alpnProtocol !== LANE_ALPN || raw === undefined || !timingSafeEqual(fingerprintOf(raw), ticket.fingerprint)) {
      socket.destroy()
      return
    }
    socket.setNoDelay(true)
    const hello = encodeHello(ticket.secret)
    let said = Buffer.alloc(0)
    let input: LaneInput = {
      take: chunk => {
        said = Buffer.concat([said, chunk])
        if (said.length < hello.length) return true
        const lane = said.length === hello.length && timingSafeEqual(said, hello) ? this.#welcome(socket, ticket) : undefined
        if (lane === undefined) socket.destroy()
        else input = lane
        return true
      }
    }
    socket.on('data', (chunk: Uint8Array) => { if (!input.take(chunk, chunk.length)) socket.pause() })
  }

  #welcome (socket: TLSSocket, { peerId }: Ticket): LaneInput | undefined {
    this.#pending.get(endsOf(socket))?.forget()
    const sockets = this.#lanes.get(peerId) ?? new Set()
    this.#lanes.set(peerId, sockets.add(socket))
    socket.once('close', () => {
      sockets.delete(socket)
      if (sockets.size === 0 && this.#lanes.get(peerId) === sockets) this.#lanes.delete(peerId)
    })
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    socket.write(encodeWelcome())
    let lane: LaneStream | undefined
    const accepted = this.#accept(peerId, (rules, handler) => lane = new LaneStream(socket, this.#components.shared, rules, handler))
    return accepted ? lane : undefined
  }
}

/** Names a connection while it lives; TLS has no other way back to the socket under it. */
function endsOf ({ localAddress, remoteAddress, remotePort }: Socket): string {
  return `${localAddress} ${remoteAddress} ${remotePort}`
}

async function listen (server: Server, host: string, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    // `::` would take the port for IPv4 too, where 0.0.0.0 may have it already.
    server.listen({ host, port, ipv6Only: host.includes(':') }, () => {
      server.off('error', reject)
      server.on('error', () => undefined) // of a single connection's accept (EMFILE): the next one may do
      resolve()
    })
  })
}
