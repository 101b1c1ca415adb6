import type { LaneCertificate } from './certificate.ts'
import type { LaneOffer } from './messages.ts'
import type { Piece } from './ring.ts'
import type { Ticket } from './tickets.ts'

/** What the main thread and a lane thread tell each other. Lanes have numbers: even ones were opened from here, odd ones came in. */
export type ToLaneThread =
  | { type: 'listen', ask: number, host: string, port: number }
  | { type: 'open', lane: number, host: string, offer: LaneOffer }
  | { type: 'ticket', ask: number, ticket: Ticket | boolean | undefined }
  /** Stays as it is until `written`. */
  | { type: 'write', lane: number, bytes: Uint8Array }
  /** Its ring has room again. */
  | { type: 'room', lane: number }
  | { type: 'destroy', lane: number }
  | { type: 'close' }

export type FromLaneThread =
  | { type: 'listening', ask: number, port: number }
  | { type: 'deaf', ask: number, message: string, code: string | undefined }
  /** Asks for the ticket of this name: whether it may come, or, once it is claimed, all of it. */
  | { type: 'claim', ask: number, name: string }
  | { type: 'take', ask: number, name: string }
  | { type: 'entered', lane: number, ticket: Ticket, ring: SharedArrayBuffer }
  | { type: 'opened', lane: number, ring: SharedArrayBuffer }
  | { type: 'received', lane: number, pieces: Piece[] }
  /** One write has left: its memory is free, and so is the way for the next. */
  | { type: 'written', lane: number }
  /** It is over; nothing more comes of it. */
  | { type: 'ended', lane: number, message: string | undefined }

export interface LaneThreadInit {
  certificate: LaneCertificate
  /** Connections that have shown no ticket. */
  pendingMax: number
  /** There is no other: nobody shares its port. */
  isAlone: boolean
}
