import type { PeerId, Startable } from '@libp2p/interface'
import { BaseDatastore } from 'datastore-core'
import { Key, type Batch, type Datastore, type KeyQuery, type Pair, type Query } from 'interface-datastore'
import { varint } from 'multiformats'
import { base32 } from 'multiformats/bases/base32'
import {
  DHT_ENTRY_BYTES_MAX, DHT_PROVIDERS_PER_ANSWER_MAX, DHT_RECORDS_PER_PEER_MAX, DiskError, LimitExceededError, asError, shuffle, type AbortOptions, type Random
} from '../base/index.ts'
import { digestOf, multihashOf } from './dht-key.ts'

/** Where kad-dht 16 keeps its provider records: PREFIX/<base32 of the key's multihash>/<peer id>, the value a varint of milliseconds. */
const PREFIX = '/dht/provider'
/** As kad-dht has it: a record not renewed for this long is void. */
export const RECORD_VALIDITY_MS = 48 * 3_600_000
/** Read of one key before some are chosen at random. */
const READ_PER_KEY_MAX = 16 * DHT_PROVIDERS_PER_ANSWER_MAX

export interface ProviderRecordsInit {
  inner: Datastore & { open?: () => Promise<void>, close?: () => Promise<void> }
  self: PeerId
  recordsMax: number
  random: Random
}

/**
 * The datastore libp2p sees: keeps kad-dht's provider records within bounds, answers for one key with a fair choice of
 * the valid ones, and adds what this node provides itself. That is asked of the announce queue each time and never
 * stored: it is true at once and after a restart, and kad-dht's own reprovider (one lookup a record) finds nothing to do.
 *
 * Refusing a record makes kad-dht reset the sender's stream, so the sender knows. Records from before the last start
 * are counted with kad-dht's first hourly pass over all of them.
 */
export class ProviderRecords extends BaseDatastore implements Startable {
  readonly #init: ProviderRecordsInit
  #byPeer = new Map<string, number>()
  #count = 0
  #provides: (digest: Uint8Array) => boolean = () => false

  constructor (init: ProviderRecordsInit) {
    super()
    this.#init = init
  }

  /** From now on, `provides` says whether this node provides the DHT key with this digest. */
  claim (provides: (digest: Uint8Array) => boolean): void {
    this.#provides = provides
  }

  /** The peers that told this node that they provide the key. Not this node itself. */
  async providersOf (digest: Uint8Array, options?: AbortOptions): Promise<string[]> {
    const found: string[] = []
    for await (const { key } of this.#recordsOf(`${PREFIX}/${base32.baseEncode(multihashOf(digest))}`, false, options)) found.push(key.name())
    return found
  }

  async beforeStart (): Promise<void> {
    try {
      await this.#init.inner.open?.()
    } catch (error) {
      throw new DiskError(`the directory libp2p/ of the data directory cannot be opened: ${asError(error).message}; it holds only what peers told, so if it is damaged it can be deleted`, { cause: error })
    }
  }

  start (): void {}
  stop (): void {}
  async afterStop (): Promise<void> { await this.#init.inner.close?.() }

  override async put (key: Key, value: Uint8Array, options?: AbortOptions): Promise<Key> {
    if (value.length > DHT_ENTRY_BYTES_MAX) throw new LimitExceededError(`an entry of ${value.length} bytes is larger than the ${DHT_ENTRY_BYTES_MAX} kept`)
    const peer = providerIn(key)
    if (peer !== undefined && !await this.#init.inner.has(key, options)) {
      const held = this.#byPeer.get(peer) ?? 0
      if (this.#count >= this.#init.recordsMax) throw new LimitExceededError(`there is no room for more than ${this.#init.recordsMax} provider records`)
      // No more than is left for all others, so that a few who have much leave room for those who come after them.
      const share = Math.min(DHT_RECORDS_PER_PEER_MAX, this.#init.recordsMax - this.#count)
      if (held >= share) throw new LimitExceededError(`no more than ${share} provider records are kept for one peer now`)
      this.#byPeer.set(peer, held + 1)
      this.#count++
    }
    return await this.#init.inner.put(key, value, options)
  }

  override async get (key: Key, options?: AbortOptions): Promise<Uint8Array> { return await this.#init.inner.get(key, options) }
  override async has (key: Key, options?: AbortOptions): Promise<boolean> { return await this.#init.inner.has(key, options) }

  override async delete (key: Key, options?: AbortOptions): Promise<void> {
    const peer = providerIn(key)
    if (peer !== undefined && await this.#init.inner.has(key, options)) {
      const held = (this.#byPeer.get(peer) ?? 0) - 1
      if (held > 0) this.#byPeer.set(peer, held)
      else this.#byPeer.delete(peer)
      this.#count = Math.max(0, this.#count - 1)
    }
    await this.#init.inner.delete(key, options)
  }

  override batch (): Batch { return this.#init.inner.batch() }

  override query (query: Query, options?: AbortOptions): AsyncGenerator<Pair> {
    if (query.prefix === PREFIX) return this.#counted(query, options)
    if (query.prefix?.startsWith(`${PREFIX}/`) === true) return this.#recordsOf(query.prefix, true, options)
    return this.#plain(query, options)
  }

  override async * queryKeys (query: KeyQuery, options?: AbortOptions): AsyncGenerator<Key> {
    yield * this.#init.inner.queryKeys(query, options)
  }

  async * #plain (query: Query, options?: AbortOptions): AsyncGenerator<Pair> {
    yield * this.#init.inner.query(query, options)
  }

  /** kad-dht's hourly pass; a full one renews the counts. */
  async * #counted (query: Query, options?: AbortOptions): AsyncGenerator<Pair> {
    const byPeer = new Map<string, number>()
    let count = 0
    for await (const pair of this.#init.inner.query(query, options)) {
      const peer = providerIn(pair.key)
      // kad-dht deletes the expired ones as it sees them.
      if (peer !== undefined && !isExpired(pair.value)) {
        byPeer.set(peer, (byPeer.get(peer) ?? 0) + 1)
        count++
      }
      yield pair
    }
    this.#byPeer = byPeer
    this.#count = count
  }

  async * #recordsOf (prefix: string, withSelf: boolean, options?: AbortOptions): AsyncGenerator<Pair> {
    const self = this.#init.self.toString()
    const found: Pair[] = []
    for await (const pair of this.#init.inner.query({ prefix, limit: READ_PER_KEY_MAX }, options)) {
      if (!isExpired(pair.value) && pair.key.name() !== self) found.push(pair)
    }
    if (withSelf && this.#provides(digestIn(prefix))) yield { key: new Key(`${prefix}/${self}`), value: encodeTime(Date.now()) }
    yield * found.length > DHT_PROVIDERS_PER_ANSWER_MAX ? shuffle(this.#init.random, found).slice(0, DHT_PROVIDERS_PER_ANSWER_MAX) : found
  }
}

/** The peer a provider record is about; undefined for another kind of entry. */
function providerIn (key: Key): string | undefined {
  const text = key.toString()
  return text.startsWith(`${PREFIX}/`) ? text.slice(text.lastIndexOf('/') + 1) : undefined
}

function digestIn (prefix: string): Uint8Array {
  try {
    return digestOf(base32.baseDecode(prefix.slice(PREFIX.length + 1))) ?? new Uint8Array(0)
  } catch {
    return new Uint8Array(0) // not a key of ours: nobody provides it
  }
}

/** Stamped by this node's own clock when it came, so other nodes' clocks do not matter. */
function isExpired (value: Uint8Array): boolean {
  try {
    return varint.decode(value)[0] < Date.now() - RECORD_VALIDITY_MS
  } catch {
    return true // torn or foreign: as good as none
  }
}

function encodeTime (milliseconds: number): Uint8Array {
  return varint.encodeTo(milliseconds, new Uint8Array(varint.encodingLength(milliseconds)))
}
