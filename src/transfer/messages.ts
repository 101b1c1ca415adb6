import { CID } from 'multiformats/cid'
import {
  CONTROL_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX, LANE_FRAME_PAYLOAD_BYTES_MAX, INVENTORY_ADDRESS_BYTES_MAX, INVENTORY_PEERS_MAX, INVENTORY_PEER_ADDRESSES_MAX, ProtocolError, asError
} from '../base/index.ts'
import { decodeCid } from '../model/index.ts'
import { exactly, whole } from './checked.ts'
import { packHead, packRequests, unpackHead, unpackRequests } from './hot-messages.ts'
import { decodeControl, encodeControl, encodeFrame, readUint32, writeUint32, type FrameRules } from './wire.ts'

/**
 * The messages of both protocols: written and read here and nowhere else (docs/PROTOCOL.md). Whatever is read here is
 * valid in itself; whether it fits the state of its stream is for the reader to say.
 */
export const BLOCK_PROTOCOL = '/shoal/block/1'
export const INVENTORY_PROTOCOL = '/shoal/inventory/1'

/** Frame types. One numbering for both protocols, so that a frame on the wrong stream is seen as one. */
export const REQUEST = 1
export const CANCEL = 2
export const HEAD = 3
export const NOT_HERE = 4
export const CANCELLED = 5
export const DATA = 6
/** A REQUEST that may wait: for a replica, not for somebody who waits. */
export const REQUEST_LATER = 7
export const OPEN = 16
export const STATE = 17
export const FIELD = 18
export const CHANGE = 19
export const PEERS = 20

export interface WantedBlock { id: number, cid: CID }
export interface ModelState { known: boolean, complete: boolean }
export interface InventoryField { file: number, offset: number, bytes: Uint8Array }
/** Somebody else who asked about the same model, and where it listens (binary multiaddrs). A hint. */
export interface InventoryPeer { id: string, addresses: Uint8Array[] }
export interface InventoryChange { file: number, have: number[], lost: number[] }

/** An id takes up to 5 bytes of a list, a request with its keys and CID about 55. Both leave room in a control body. */
const IDS_PER_FRAME = 2_000
const REQUESTS_PER_FRAME = 200
export const CHANGES_PER_FRAME = 1_500
const FIELD_HEAD_BYTES = 8
/** An id of an RSA key has 46 characters, of an Ed25519 key 52. */
const PEER_ID_CHARACTERS_MAX = 128
/** Bitfield bytes of one field frame. */
export const FIELD_BYTES_MAX = FRAME_PAYLOAD_BYTES_MAX - FIELD_HEAD_BYTES

function controls (...types: number[]): FrameRules['bodyBytesMax'] {
  return type => types.includes(type) ? CONTROL_BYTES_MAX : undefined
}

/** What each side of each protocol may receive. */
export const blockServerRules: FrameRules = { bodyBytesMax: controls(REQUEST, REQUEST_LATER, CANCEL) }
const answers = controls(HEAD, NOT_HERE, CANCELLED)
export const blockClientRules: FrameRules = { bodyBytesMax: type => type === DATA ? 4 + LANE_FRAME_PAYLOAD_BYTES_MAX : answers(type), dataType: DATA }
export const inventoryServerRules: FrameRules = { bodyBytesMax: controls(OPEN) }
const told = controls(STATE, CHANGE, PEERS)
export const inventoryClientRules: FrameRules = { bodyBytesMax: type => type === FIELD ? FIELD_HEAD_BYTES + FIELD_BYTES_MAX : told(type) }

/** For REQUEST and REQUEST_LATER. */
export function encodeRequests (type: number, wanted: WantedBlock[]): Uint8Array[] {
  return inParts(wanted, REQUESTS_PER_FRAME).map(part => {
    const packed = packRequests(part)
    return packed === undefined ? encodeControl(type, part) : encodeFrame(type, packed)
  })
}

export function decodeRequests (body: Uint8Array): WantedBlock[] {
  const requests = checked(() => unpackRequests(body))
  if (requests !== undefined) {
    for (const { id } of requests) requestId(id)
    return requests
  }
  return list(decodeControl(body)).map(entry => {
    const { id, cid } = exactly(entry, ['id', 'cid'])
    return { id: requestId(id), cid: link(cid) }
  })
}

/** For CANCEL, NOT_HERE and CANCELLED. */
export function encodeIds (type: number, ids: number[]): Uint8Array[] {
  return inParts(ids, IDS_PER_FRAME).map(part => encodeControl(type, part))
}

export function decodeIds (body: Uint8Array): number[] {
  return list(decodeControl(body)).map(requestId)
}

export function encodeHead (id: number, size: number): Uint8Array {
  const packed = packHead({ id, size })
  return packed === undefined ? encodeControl(HEAD, { id, size }) : encodeFrame(HEAD, packed)
}

export function decodeHead (body: Uint8Array): { id: number, size: number } {
  const { id, size } = unpackHead(body) ?? exactly(decodeControl(body), ['id', 'size'])
  return { id: requestId(id), size: whole(size, 1) }
}

export function encodeOpen (model: CID): Uint8Array {
  return encodeControl(OPEN, { model })
}

export function decodeOpen (body: Uint8Array): CID {
  return link(exactly(decodeControl(body), ['model']).model)
}

export function encodeState (state: ModelState): Uint8Array {
  return encodeControl(STATE, { known: state.known, complete: state.complete })
}

export function decodeState (body: Uint8Array): ModelState {
  const { known, complete } = exactly(decodeControl(body), ['known', 'complete'])
  if (typeof known !== 'boolean' || typeof complete !== 'boolean' || (complete && !known)) throw new ProtocolError('a state that makes no sense')
  return { known, complete }
}

/** `u32le file | u32le offset | bytes`: bytes of the file's bitfield from byte `offset` on. */
export function encodeField (field: InventoryField): Uint8Array {
  const body = new Uint8Array(FIELD_HEAD_BYTES + field.bytes.length)
  writeUint32(body, 0, field.file)
  writeUint32(body, 4, field.offset)
  body.set(field.bytes, FIELD_HEAD_BYTES)
  return encodeFrame(FIELD, body)
}

/** `bytes` is a view of `body`. */
export function decodeField (body: Uint8Array): InventoryField {
  if (body.length <= FIELD_HEAD_BYTES) throw new ProtocolError('a bitfield without bits')
  return { file: readUint32(body, 0), offset: readUint32(body, 4), bytes: body.subarray(FIELD_HEAD_BYTES) }
}

export function encodeChange (change: InventoryChange): Uint8Array {
  return encodeControl(CHANGE, { file: change.file, have: change.have, lost: change.lost })
}

export function decodeChange (body: Uint8Array): InventoryChange {
  const { file, have, lost } = exactly(decodeControl(body), ['file', 'have', 'lost'])
  return { file: whole(file, 0), have: numbers(have), lost: numbers(lost) }
}

export function encodePeers (peers: InventoryPeer[]): Uint8Array {
  return encodeControl(PEERS, peers.map(({ id, addresses }) => ({ id, addresses })))
}

export function decodePeers (body: Uint8Array): InventoryPeer[] {
  const peers = list(decodeControl(body))
  if (peers.length > INVENTORY_PEERS_MAX) throw new ProtocolError(`${peers.length} peers at once; at most ${INVENTORY_PEERS_MAX} are allowed`)
  return peers.map(peer => {
    const { id, addresses } = exactly(peer, ['id', 'addresses'])
    if (typeof id !== 'string' || id.length > PEER_ID_CHARACTERS_MAX) throw new ProtocolError('a peer without an id')
    if (!Array.isArray(addresses) || addresses.length > INVENTORY_PEER_ADDRESSES_MAX) throw new ProtocolError('a peer with too many addresses, or none')
    return {
      id,
      addresses: addresses.map((address: unknown) => {
        if (!(address instanceof Uint8Array) || address.length > INVENTORY_ADDRESS_BYTES_MAX) throw new ProtocolError('a peer with an address that is none')
        return address
      })
    }
  })
}

function inParts<T> (items: T[], length: number): T[][] {
  const parts: T[][] = []
  for (let at = 0; at < items.length; at += length) parts.push(items.slice(at, at + length))
  return parts
}

function list (value: unknown): unknown[] {
  if (!Array.isArray(value) || value.length === 0) throw new ProtocolError('a message that should be a list with entries')
  return value
}

function numbers (value: unknown): number[] {
  if (!Array.isArray(value)) throw new ProtocolError('a message with something else where a list of numbers belongs')
  return value.map(entry => whole(entry, 0))
}

function requestId (value: unknown): number {
  return whole(value, 1, 0xffff_ffff)
}

function link (value: unknown): CID {
  const cid = CID.asCID(value)
  if (cid === null) throw new ProtocolError('a message without a link where one belongs')
  return checked(() => decodeCid(cid.bytes))
}

/** For what decodes CIDs: whoever sends one that is none breaks the rules. */
function checked<T> (decode: () => T): T {
  try {
    return decode()
  } catch (error) {
    throw new ProtocolError(`a message with a link to something else than a block or metadata: ${asError(error).message}`, { cause: error })
  }
}
