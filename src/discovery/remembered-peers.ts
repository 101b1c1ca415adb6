import { BaseDatastore } from 'datastore-core'
import { Key, type Datastore, type KeyQuery, type Pair, type Query } from 'interface-datastore'
import { asError, type AbortOptions, type Clock, type Logger } from '../base/index.ts'

/** Where libp2p keeps what it knows of each peer. */
const PREFIX = '/peers/'
/** Peers in memory: about a kilobyte each. */
const REMEMBERED_MAX = 1_024
/** What changed is written so much later, all of it at once. */
const WRITE_AFTER_MS = 1_000

export interface RememberedPeersComponents { clock: Clock, logger: Logger }

/**
 * A datastore that keeps the peers last used in memory and writes them a second late. libp2p reads and writes a peer's entry for each
 * stream that is opened to or by it, before the stream is of use, and several times for each connection; and each of these is a turn of
 * another thread. A node that dies loses what it learnt about its peers within that second. All else passes.
 */
export class RememberedPeers extends BaseDatastore {
  readonly #inner: Datastore & { open?: () => Promise<void>, close?: () => Promise<void> }
  readonly #components: RememberedPeersComponents
  /** Last used last. */
  readonly #entries = new Map<string, Uint8Array>()
  /** Of these the disk has an older state, or none. */
  readonly #unwritten = new Set<string>()
  /** Counts up with each change: what was read meanwhile may be out of date. */
  #changes = 0
  #writing: Promise<void> | undefined
  #cancel: (() => void) | undefined
  #closed = false

  constructor (inner: Datastore & { open?: () => Promise<void>, close?: () => Promise<void> }, components: RememberedPeersComponents) {
    super()
    this.#inner = inner
    this.#components = components
  }

  async open (): Promise<void> { await this.#inner.open?.() }

  async close (): Promise<void> {
    this.#closed = true
    await this.#write().catch(error => { this.#warn(error) })
    await this.#inner.close?.()
  }

  override async put (key: Key, value: Uint8Array, options?: AbortOptions): Promise<Key> {
    const name = key.toString()
    if (!name.startsWith(PREFIX) || this.#closed) return await this.#inner.put(key, value, options)
    if (this.#unwritten.size >= REMEMBERED_MAX) await this.#write()
    this.#changes++
    this.#unwritten.add(name)
    this.#remember(name, value)
    this.#writeSoon()
    return key
  }

  override async get (key: Key, options?: AbortOptions): Promise<Uint8Array> {
    const name = key.toString()
    const known = this.#entries.get(name)
    if (known !== undefined) {
      this.#remember(name, known)
      return known
    }
    const changes = this.#changes
    const value = await this.#inner.get(key, options)
    if (name.startsWith(PREFIX) && changes === this.#changes) this.#remember(name, value)
    return value
  }

  override async has (key: Key, options?: AbortOptions): Promise<boolean> {
    return this.#entries.has(key.toString()) || await this.#inner.has(key, options)
  }

  override async delete (key: Key, options?: AbortOptions): Promise<void> {
    const name = key.toString()
    this.#changes++
    this.#entries.delete(name)
    this.#unwritten.delete(name)
    // What is being written comes before, and is deleted with it.
    await this.#writing?.catch(() => undefined)
    await this.#inner.delete(key, options)
  }

  override async * query (query: Query, options?: AbortOptions): AsyncGenerator<Pair> {
    await this.#writeFor(query)
    yield * this.#inner.query(query, options)
  }

  override async * queryKeys (query: KeyQuery, options?: AbortOptions): AsyncGenerator<Key> {
    await this.#writeFor(query)
    yield * this.#inner.queryKeys(query, options)
  }

  /** A query looks at the disk. */
  async #writeFor ({ prefix = '' }: { prefix?: string }): Promise<void> {
    if (prefix.startsWith(PREFIX) || PREFIX.startsWith(prefix)) await this.#write()
  }

  #remember (name: string, value: Uint8Array): void {
    this.#entries.delete(name)
    this.#entries.set(name, value)
    if (this.#entries.size <= REMEMBERED_MAX) return
    for (const oldest of this.#entries.keys()) {
      if (this.#unwritten.has(oldest)) continue
      this.#entries.delete(oldest)
      return
    }
  }

  #writeSoon (): void {
    this.#cancel ??= this.#components.clock.setTimeout(() => {
      // What could not be written is tried again with the next change.
      this.#write().catch(error => { this.#warn(error) })
    }, WRITE_AFTER_MS)
  }

  /** Writes what is unwritten. Throws what the disk says; nothing is forgotten then. */
  async #write (): Promise<void> {
    this.#cancel?.()
    this.#cancel = undefined
    while (this.#writing !== undefined) await this.#writing
    if (this.#unwritten.size === 0) return
    this.#writing = this.#writeAll().finally(() => { this.#writing = undefined })
    await this.#writing
  }

  async #writeAll (): Promise<void> {
    const written = new Map<string, Uint8Array>()
    const batch = this.#inner.batch()
    for (const name of this.#unwritten) {
      const value = this.#entries.get(name)
      if (value === undefined) continue
      batch.put(new Key(name, false), value)
      written.set(name, value)
    }
    await batch.commit()
    for (const [name, value] of written) if (this.#entries.get(name) === value) this.#unwritten.delete(name)
  }

  #warn (error: unknown): void {
    this.#components.logger.warn({ error: asError(error).message }, 'what is known about peers could not be written')
  }
}
