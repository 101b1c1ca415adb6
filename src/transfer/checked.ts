import { ProtocolError } from '../base/index.ts'

/** What the messages of every protocol are checked with once they are decoded. All throw ProtocolError. */

/** An Ed25519 peer id in base58: what every node's identity is. */
const PEER_ID = /^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/

/** A map with these keys and no others. */
export function exactly<Key extends string> (value: unknown, keys: readonly Key[]): Record<Key, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new ProtocolError('something else where a map belongs')
  const found: Partial<Record<string, unknown>> = Object.assign(Object.create(null), value)
  if (Object.keys(found).length !== keys.length || !keys.every(key => key in found)) throw new ProtocolError(`a map that should have the keys ${keys.join(', ')}`)
  return found as Record<Key, unknown>
}

export function whole (value: unknown, least: number, most = Number.MAX_SAFE_INTEGER): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < least || value > most) throw new ProtocolError(`something else where a whole number from ${least} to ${most} belongs`)
  return value
}

export function nodePeerId (value: unknown): string {
  if (typeof value !== 'string' || !PEER_ID.test(value)) throw new ProtocolError('something else where a peer id belongs')
  return value
}
