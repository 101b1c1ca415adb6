import { LANE_TICKETS_MAX, LANE_TICKETS_PER_PEER_MAX, LANE_TICKET_MS, type Clock, type Random } from '../../base/index.ts'
import { TICKET_NAME_BYTES, TICKET_SECRET_BYTES } from './messages.ts'

export interface Ticket {
  readonly peerId: string
  /** Of the certificate that whoever comes with it must show. */
  readonly fingerprint: Uint8Array
  readonly name: Uint8Array
  readonly secret: Uint8Array
  readonly expiresAt: number
  /** Somebody has come with its name; nobody else may. */
  claimed: boolean
}

/**
 * Tickets that are out. Each is good once and not for long. Its name goes over the wire in the open and is enough to
 * tell a stranger from a guest before anything costly is done; its secret, and the certificate it was made out for, are
 * what lets in. Bounded: who asks for more than a few loses his own oldest, and all together lose the oldest.
 */
export class Tickets {
  readonly #clock: Clock
  readonly #random: Random
  /** By name in hex, oldest first. */
  readonly #tickets = new Map<string, Ticket>()

  constructor (clock: Clock, random: Random) {
    this.#clock = clock
    this.#random = random
  }

  get size (): number { return this.#tickets.size }

  issue (peerId: string, fingerprint: Uint8Array): Ticket {
    const now = this.#clock.monotonic()
    this.#expire(now)
    const own = [...this.#tickets].filter(([, ticket]) => ticket.peerId === peerId)
    const [oldest] = own.length >= LANE_TICKETS_PER_PEER_MAX ? own : this.#tickets.size >= LANE_TICKETS_MAX ? this.#tickets : []
    if (oldest !== undefined) this.#tickets.delete(oldest[0])
    const ticket: Ticket = {
      peerId,
      fingerprint,
      name: this.#random.bytes(TICKET_NAME_BYTES),
      secret: this.#random.bytes(TICKET_SECRET_BYTES),
      expiresAt: now + LANE_TICKET_MS,
      claimed: false
    }
    this.#tickets.set(serverName(ticket.name), ticket)
    return ticket
  }

  /** True for the first who comes with this name in time. */
  claim (name: string): boolean {
    this.#expire(this.#clock.monotonic())
    const ticket = this.#tickets.get(name)
    if (ticket === undefined || ticket.claimed) return false
    ticket.claimed = true
    return true
  }

  /** The ticket that was claimed under this name; it is gone then. */
  take (name: string): Ticket | undefined {
    this.#expire(this.#clock.monotonic())
    const ticket = this.#tickets.get(name)
    if (ticket?.claimed !== true) return undefined
    this.#tickets.delete(name)
    return ticket
  }

  forget (peerId: string): void {
    for (const [name, ticket] of this.#tickets) if (ticket.peerId === peerId) this.#tickets.delete(name)
  }

  #expire (now: number): void {
    for (const [name, ticket] of this.#tickets) {
      if (ticket.expiresAt > now) return
      this.#tickets.delete(name)
    }
  }
}

/** The ticket's name as TLS says it: a host name of one label. */
export function serverName (name: Uint8Array): string {
  return Buffer.from(name).toString('hex')
}
