import { encode } from '@ipld/dag-cbor'
import { ORIGIN_CLAIMS_MAX, ORIGIN_INSTALMENTS_MAX, ORIGIN_MESSAGE_BYTES_MAX, ORIGIN_PEEK_BYTES_MAX, PATH_BYTES_MAX, ProtocolError, asError } from '../base/index.ts'
import { parseModelCid } from '../model/index.ts'
import { decodeControl, encodeFrame, exactly, nodePeerId, whole, type FrameRules } from '../transfer/index.ts'
import type { Claim, ClaimState } from './claims.ts'

/** One question a stream, and its answer. docs/PROTOCOL.md describes them. */
export const ORIGIN_PROTOCOL = '/shoal/origin/1'

export const ASK = 1
export const CLAIMS = 2
export const PEEK = 3
export const BYTES = 4
export const LIST = 5
export const INSTALMENTS = 6

export const QUESTION_RULES: FrameRules = { bodyBytesMax: type => (type === ASK || type === PEEK || type === LIST ? ORIGIN_MESSAGE_BYTES_MAX : undefined) }
export const ANSWER_RULES: FrameRules = { bodyBytesMax: type => (type === CLAIMS || type === INSTALMENTS ? ORIGIN_MESSAGE_BYTES_MAX : type === BYTES ? ORIGIN_PEEK_BYTES_MAX : undefined) }

const STATES: readonly ClaimState[] = ['want', 'fetching', 'have']
/** SHA-256 of the name, in hex. */
const KEY = /^[0-9a-f]{64}$/

export interface AskMessage { key: string, claim: Claim | undefined }
export interface PeekMessage { key: string, path: string, offset: number, length: number }

export function encodeAsk ({ key, claim }: AskMessage): Uint8Array {
  return encodeFrame(ASK, encode({ key, claim: claim === undefined ? null : forWire(claim) }))
}

/** A claim is made by the peer itself: another name in it is a lie. Throws ProtocolError. */
export function decodeAsk (body: Uint8Array, from: string): AskMessage {
  const { key, claim } = exactly(decodeControl(body), ['key', 'claim'])
  const read = claim === null ? undefined : readClaim(claim)
  if (read !== undefined && read.peerId !== from) throw new ProtocolError('a claim in the name of another peer')
  return { key: readKey(key), claim: read }
}

export function encodeClaims (claims: readonly Claim[]): Uint8Array {
  return encodeFrame(CLAIMS, encode(claims.slice(0, ORIGIN_CLAIMS_MAX).map(forWire)))
}

/** Throws ProtocolError. */
export function decodeClaims (body: Uint8Array): Claim[] {
  const value = decodeControl(body)
  if (!Array.isArray(value) || value.length > ORIGIN_CLAIMS_MAX) throw new ProtocolError(`something else where at most ${ORIGIN_CLAIMS_MAX} claims belong`)
  return value.map(readClaim)
}

export function encodePeek (message: PeekMessage): Uint8Array {
  return encodeFrame(PEEK, encode(message))
}

/** Throws ProtocolError. */
export function decodePeek (body: Uint8Array): PeekMessage {
  const { key, path, offset, length } = exactly(decodeControl(body), ['key', 'path', 'offset', 'length'])
  if (typeof path !== 'string' || path.length > PATH_BYTES_MAX) throw new ProtocolError('something else where a path belongs')
  return { key: readKey(key), path, offset: whole(offset, 0), length: whole(length, 0, ORIGIN_PEEK_BYTES_MAX) }
}

export function encodeBytes (bytes: Uint8Array): Uint8Array {
  return encodeFrame(BYTES, bytes)
}

export function encodeList (key: string): Uint8Array {
  return encodeFrame(LIST, encode({ key }))
}

/** The key. Throws ProtocolError. */
export function decodeList (body: Uint8Array): string {
  return readKey(exactly(decodeControl(body), ['key']).key)
}

export function encodeInstalments (cids: readonly string[]): Uint8Array {
  return encodeFrame(INSTALMENTS, encode(cids.slice(0, ORIGIN_INSTALMENTS_MAX)))
}

/** Model CIDs. Throws ProtocolError. */
export function decodeInstalments (body: Uint8Array): string[] {
  const value = decodeControl(body)
  if (!Array.isArray(value) || value.length > ORIGIN_INSTALMENTS_MAX) throw new ProtocolError(`something else where at most ${ORIGIN_INSTALMENTS_MAX} model CIDs belong`)
  return value.map((cid: unknown) => {
    if (typeof cid !== 'string') throw new ProtocolError('something else where a model CID belongs')
    return readCid(cid)
  })
}

function forWire ({ peerId, state, cid, bytesDone, bytesTotal }: Claim): object {
  return { peerId, state, cid: cid ?? null, bytesDone, bytesTotal }
}

function readClaim (value: unknown): Claim {
  const { peerId, state, cid, bytesDone, bytesTotal } = exactly(value, ['peerId', 'state', 'cid', 'bytesDone', 'bytesTotal'])
  const known = STATES.find(each => each === state)
  if (known === undefined) throw new ProtocolError('a claim of an unknown state')
  if ((known === 'have') !== (typeof cid === 'string')) throw new ProtocolError('a model CID belongs to what a peer has, and to nothing else')
  return { peerId: nodePeerId(peerId), state: known, cid: typeof cid === 'string' ? readCid(cid) : undefined, bytesDone: whole(bytesDone, 0), bytesTotal: whole(bytesTotal, 0) }
}

function readCid (text: string): string {
  try {
    return parseModelCid(text).toString()
  } catch (error) {
    throw new ProtocolError(`something else where a model CID belongs: ${asError(error).message}`, { cause: error })
  }
}

function readKey (value: unknown): string {
  if (typeof value !== 'string' || !KEY.test(value)) throw new ProtocolError('something else where a key belongs')
  return value
}
