import { LANES_PENDING_MAX, LANE_TICKET_MS, asError, systemCode, type Clock, type Logger, type Random } from '../../base/index.ts'
import type { OpenFrames } from '../frame-stream.ts'
import type { LaneCertificate } from './certificate.ts'
import { LaneDoor } from './lane-door.ts'
import type { LaneInput, LaneSocket } from './lane-socket.ts'
import { LaneStream, type LaneShared } from './lane-stream.ts'
import type { LaneThreads } from './lane-threads.ts'
import type { LaneOffer } from './messages.ts'
import { Tickets, type Ticket } from './tickets.ts'

export interface LaneServerComponents {
  clock: Clock
  random: Random
  logger: Logger
  certificate: LaneCertificate
  shared: LaneShared
  /** Those that listen; undefined: this thread does. */
  threads?: LaneThreads | undefined
}

export interface LaneServerInit {
  /** Addresses to listen on, all with one port. */
  hosts: string[]
  /** 0: any free one. One that is taken: any free one, too. */
  port: number
}

/** Takes over a lane that speaks for `peerId`; false when it has too many. */
export type AcceptLane = (peerId: string, open: OpenFrames) => boolean

/** Offers lanes, and hands on those who come with the ticket of an offer: through a door (lane-door.ts) in this thread, or in several others. */
export class LaneServer {
  readonly #components: LaneServerComponents
  readonly #init: LaneServerInit
  readonly #accept: AcceptLane
  readonly #tickets: Tickets
  readonly #door: LaneDoor
  readonly #lanes = new Map<string, Set<LaneSocket>>()
  #port = 0

  constructor (components: LaneServerComponents, init: LaneServerInit, accept: AcceptLane) {
    const { clock, random, certificate, threads } = components
    this.#components = components
    this.#init = init
    this.#accept = accept
    this.#tickets = new Tickets(clock, random)
    const enter = (ticket: Ticket, socket: LaneSocket): LaneInput | undefined => this.#enter(ticket, socket)
    this.#door = new LaneDoor({ clock, certificate, pendingMax: LANES_PENDING_MAX, office: this.#tickets, enter })
    threads?.serve({ office: this.#tickets, enter })
  }

  /** 0 before start(), and when no address could be listened on. */
  get port (): number { return this.#components.threads?.listening === false ? 0 : this.#port }
  /** Those at this thread's own door. */
  get pending (): number { return this.#door.pending }
  get tickets (): number { return this.#tickets.size }
  get lanes (): number {
    let lanes = 0
    for (const sockets of this.#lanes.values()) lanes += sockets.size
    return lanes
  }

  /** Never throws: a node without lanes serves over streams. */
  async start (): Promise<void> {
    const { logger, threads } = this.#components
    for (const host of this.#init.hosts) {
      for (const port of this.#port > 0 ? [this.#port] : new Set([this.#init.port, 0])) {
        try {
          this.#port = await (threads ?? this.#door).listen(host, port)
        } catch (error) {
          const isLast = port === 0 || this.#port > 0
          logger.warn({ host, port, error: asError(error).message }, isLast ? 'lanes cannot listen here' : 'the lane port is taken; any free one will do')
          if (isLast || systemCode(error) !== 'EADDRINUSE') break
          continue
        }
        break
      }
    }
  }

  async stop (): Promise<void> {
    const closing = this.#door.close()
    this.#components.threads?.close()
    for (const sockets of this.#lanes.values()) for (const socket of sockets) socket.destroy()
    this.#port = 0
    await closing
  }

  /** A lane for `peerId`, which will show a certificate with this fingerprint. Undefined when this node has none to offer. */
  offer (peerId: string, fingerprint: Uint8Array): LaneOffer | undefined {
    const { port } = this
    if (port === 0) return undefined
    const { name, secret } = this.#tickets.issue(peerId, fingerprint)
    return { port, fingerprint: this.#components.certificate.fingerprint, name, secret, ttlMs: LANE_TICKET_MS }
  }

  /** Ends the lanes of a peer, and its tickets. */
  drop (peerId: string): void {
    this.#tickets.forget(peerId)
    for (const socket of this.#lanes.get(peerId) ?? []) socket.destroy()
  }

  #enter ({ peerId }: Ticket, socket: LaneSocket): LaneInput | undefined {
    const sockets = this.#lanes.get(peerId) ?? new Set()
    this.#lanes.set(peerId, sockets.add(socket))
    socket.once('close', () => {
      sockets.delete(socket)
      if (sockets.size === 0 && this.#lanes.get(peerId) === sockets) this.#lanes.delete(peerId)
    })
    let lane: LaneStream | undefined
    const accepted = this.#accept(peerId, (rules, handler) => lane = new LaneStream(socket, this.#components.shared, rules, handler))
    return accepted ? lane : undefined
  }
}
