import { hash } from 'node:crypto'
import * as dagCbor from '@ipld/dag-cbor'
import { multiaddr } from '@multiformats/multiaddr'
import { base32 } from 'multiformats/bases/base32'
import { INVITE_ADDRESSES_MAX, INVITE_BYTES_MAX, InvalidInviteError, UsageError } from '../base/index.ts'
import { SWARM_KEY_BYTES } from './swarm-key.ts'

/** What a node needs to join a swarm. `swarmKey` is missing in an open one. */
export interface Invite {
  /** Multiaddrs; they should end in /p2p/<peer id>. */
  addresses: string[]
  swarmKey?: Uint8Array
}

const PREFIX = 'shoal1'
const CHECKSUM_BYTES = 4

/**
 * `shoal1`, then base32 of DAG-CBOR `{addresses: [bytes], key?: bytes}` and four bytes of its sha-256: letters and
 * digits of one case, safe in a shell and over the phone. Whoever has it can join, so it is as secret as the key.
 * Of more than INVITE_ADDRESSES_MAX addresses the first are kept. Throws UsageError for what cannot be in an invite.
 */
export function encodeInvite (invite: Invite): string {
  if (invite.addresses.length === 0) throw new UsageError('an invite needs an address, and this node listens on none')
  if (invite.swarmKey !== undefined && invite.swarmKey.length !== SWARM_KEY_BYTES) throw new UsageError(`a swarm key has ${SWARM_KEY_BYTES} bytes, not ${invite.swarmKey.length}`)
  const addresses = invite.addresses.slice(0, INVITE_ADDRESSES_MAX).map(address => multiaddr(address).bytes)
  const body = dagCbor.encode({ addresses, ...(invite.swarmKey === undefined ? {} : { key: invite.swarmKey }) })
  return PREFIX + base32.baseEncode(Buffer.concat([body, checksum(body)]))
}

/** Throws InvalidInviteError, which says what is wrong. Space around the token is passed over, and so is its case. */
export function decodeInvite (token: string): Invite {
  if (token.length > INVITE_BYTES_MAX * 2) throw new InvalidInviteError(`an invite has at most ${INVITE_BYTES_MAX} bytes; this is longer`)
  const text = token.trim().toLowerCase()
  if (!text.startsWith(PREFIX)) throw new InvalidInviteError(`an invite begins with "${PREFIX}"; get one with: shoal invite`)
  const bytes = attempt(() => base32.baseDecode(text.slice(PREFIX.length)), 'an invite holds the letters a to z and the digits 2 to 7; this has others, or a piece is missing')
  if (bytes.length > INVITE_BYTES_MAX) throw new InvalidInviteError(`an invite has at most ${INVITE_BYTES_MAX} bytes, not ${bytes.length}`)
  const body = bytes.subarray(0, Math.max(0, bytes.length - CHECKSUM_BYTES))
  if (body.length === 0 || Buffer.compare(checksum(body), bytes.subarray(body.length)) !== 0) {
    throw new InvalidInviteError('the checksum of the invite does not match: it was cut short or mistyped; copy it again, whole')
  }
  return checkBody(attempt<unknown>(() => dagCbor.decode(body), 'the invite is of a kind this version does not know'))
}

function checkBody (value: unknown): Invite {
  const unknown = 'the invite is of a kind this version does not know'
  if (typeof value !== 'object' || value === null || !('addresses' in value) || !Array.isArray(value.addresses)) throw new InvalidInviteError(unknown)
  if (Object.keys(value).some(name => name !== 'addresses' && name !== 'key')) throw new InvalidInviteError(unknown)
  if (value.addresses.length === 0 || value.addresses.length > INVITE_ADDRESSES_MAX) {
    throw new InvalidInviteError(`an invite has 1 to ${INVITE_ADDRESSES_MAX} addresses, not ${value.addresses.length}`)
  }
  const addresses = value.addresses.map((bytes: unknown) => {
    if (!(bytes instanceof Uint8Array)) throw new InvalidInviteError(unknown)
    return attempt(() => multiaddr(bytes).toString(), 'the invite holds something that is no address')
  })
  if (!('key' in value)) return { addresses }
  if (!(value.key instanceof Uint8Array) || value.key.length !== SWARM_KEY_BYTES) throw new InvalidInviteError(`the swarm key in the invite has not ${SWARM_KEY_BYTES} bytes`)
  return { addresses, swarmKey: Uint8Array.from(value.key) }
}

function attempt<T> (decode: () => T, complaint: string): T {
  try {
    return decode()
  } catch (error) {
    throw new InvalidInviteError(complaint, { cause: error })
  }
}

function checksum (body: Uint8Array): Uint8Array {
  return hash('sha256', body, 'buffer').subarray(0, CHECKSUM_BYTES)
}
