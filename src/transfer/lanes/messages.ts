import { LANE_TICKET_MS, ProtocolError } from '../../base/index.ts'
import { exactly, whole } from '../checked.ts'
import { decodeControl, encodeControl, encodeFrame, type FrameRules } from '../wire.ts'

/** Asking for a lane, over the authenticated connection (docs/PROTOCOL.md). One question and one answer a stream. */
export const LANE_PROTOCOL = '/shoal/lane/1'
/** What TLS is told to speak, so that nothing else that listens on the port is mistaken for a lane. */
export const LANE_ALPN = 'shoal-lane/1'

/** Frame types, of one numbering with those of the other protocols (../messages.ts). */
export const ASK = 32
export const LANE = 33
export const NO_LANE = 34
/** The first frame on a lane, from the client: the ticket's secret. */
export const HELLO = 35
/** The server's answer: from now on it is a block stream. */
export const WELCOME = 36

export const FINGERPRINT_BYTES = 32
/** The part of a ticket that is told in the open (in TLS's server name), and the part that is not. */
export const TICKET_NAME_BYTES = 16
export const TICKET_SECRET_BYTES = 32

export interface LaneOffer {
  port: number
  /** Of the certificate that the server will show. */
  fingerprint: Uint8Array
  name: Uint8Array
  secret: Uint8Array
  /** For how long the ticket is good, from when it was made, milliseconds. */
  ttlMs: number
}

const MESSAGE_BYTES_MAX = 512

export const laneServerRules: FrameRules = { bodyBytesMax: type => type === ASK ? MESSAGE_BYTES_MAX : undefined }
export const laneClientRules: FrameRules = { bodyBytesMax: type => type === LANE || type === NO_LANE ? MESSAGE_BYTES_MAX : undefined }

/** With the fingerprint of the certificate that the asker will show. */
export function encodeAsk (fingerprint: Uint8Array): Uint8Array { return encodeControl(ASK, { fingerprint }) }

export function decodeAsk (body: Uint8Array): Uint8Array {
  return bytesOf(exactly(decodeControl(body), ['fingerprint']).fingerprint, FINGERPRINT_BYTES)
}

export function encodeLane ({ port, fingerprint, name, secret, ttlMs }: LaneOffer): Uint8Array {
  return encodeControl(LANE, { port, fingerprint, name, secret, ttlMs })
}

export function decodeLane (body: Uint8Array): LaneOffer {
  const { port, fingerprint, name, secret, ttlMs } = exactly(decodeControl(body), ['port', 'fingerprint', 'name', 'secret', 'ttlMs'])
  const offer = {
    port: whole(port, 1),
    fingerprint: bytesOf(fingerprint, FINGERPRINT_BYTES),
    name: bytesOf(name, TICKET_NAME_BYTES),
    secret: bytesOf(secret, TICKET_SECRET_BYTES),
    ttlMs: whole(ttlMs, 1)
  }
  if (offer.port > 0xffff || offer.ttlMs > 60 * LANE_TICKET_MS) throw new ProtocolError('a lane on a port that is none, or for longer than a lane is offered')
  return offer
}

export function encodeNoLane (): Uint8Array { return encodeControl(NO_LANE, {}) }
export function encodeHello (secret: Uint8Array): Uint8Array { return encodeFrame(HELLO, secret) }
export function encodeWelcome (): Uint8Array { return encodeFrame(WELCOME, new Uint8Array(0)) }

/** Its own copy: the body it came in is somebody's buffer. */
function bytesOf (value: unknown, length: number): Uint8Array {
  if (!(value instanceof Uint8Array) || value.length !== length) throw new ProtocolError(`a message with something else where ${length} bytes belong`)
  return new Uint8Array(value)
}
