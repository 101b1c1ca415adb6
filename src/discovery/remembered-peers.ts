import { BaseDatastore } from 'datastore-core'
import { Key, type Datastore, type KeyQuery, type Pair, type Query } from 'interface-datastore'
import { KiB, PEERS_REMEMBERED_MAX, asError, type AbortOptions, type Clock, type Logger } from '../base/index.ts'

/** Where libp2p keeps what it knows of each peer. */
const PREFIX = '/peers/'
/** Mostly one; what is larger goes to the disk. */
const ENTRY_BYTES_MAX = 8 * KiB
/** What changed is written so much later, all of it at once. */
const WRITE_AFTER_MS = 1_000

type OpenDatastore = Datastore & { open?: () => Promise<void>, close?: () => Promise<void> }
export interface RememberedPeersComponents { clock: Clock, logger: Logger }

/**
 * A datastore that keeps the peers last used in memory and writes them a second late. libp2p reads and writes a peer's entry for each
 * stream that is opened to or by it, before the stream is of use, and several times for each connection; and each of these is a turn of
 * another thread. A node that dies loses what it learnt about its peers within that second. All else passes, batches in single steps.
 */
export class RememberedPeers extends BaseDatastore {
  readonly #inner: OpenDatastore
  readonly #components: RememberedPeersComponents
  /** Last used last. */
  readonly #entries = new Map<string, Uint8Array>()
  /** Of these the disk has an older state, or none. */
  readonly #unwritten = new Set<string>()
  /** Counts up with each change: what was read meanwhile may be out of date. */
  #changes = 0
  /** Writes and deletions reach the disk in their order. */
  #last: Promise<unknown> = Promise.resolve()
  #cancel: (() => void) | undefined
  #isOpen = false

  constructor (inner: OpenDatastore, components: RememberedPeersComponents) {
    super()
    this.#inner = inner
    this.#components = components
  }

  async open (): Promise<void> {
    await this.#inner.open?.()
    this.#entries.clear()
    this.#unwritten.clear()
    this.#isOpen = true
  }

  async close (): Promise<void> {
    try {
      while (this.#unwritten.size > 0) await this.#write()
    } catch (error) {
      this.#warn(error)
    }
    this.#isOpen = false
    this.#disarm()
    await this.#inner.close?.()
  }

  override async put (key: Key, value: Uint8Array, options?: AbortOptions): Promise<Key> {
    const name = key.toString()
    if (!name.startsWith(PREFIX) || !this.#isOpen) return await this.#inner.put(key, value, options)
    this.#changes++
    if (value.length > ENTRY_BYTES_MAX || (this.#unwritten.size >= PEERS_REMEMBERED_MAX && !this.#unwritten.has(name))) {
      this.#entries.delete(name)
      this.#unwritten.delete(name)
      return await this.#inTurn(async () => await this.#inner.put(key, value, options))
    }
    this.#unwritten.add(name)
    this.#remember(name, value)
    this.#writeSoon()
    return key
  }

  override async get (key: Key, options?: AbortOptions): Promise<Uint8Array> {
    const name = key.toString()
    const known = this.#entries.get(name)
    if (known !== undefined) {
      this.#entries.delete(name)
      this.#entries.set(name, known)
      return known
    }
    const changes = this.#changes
    const value = await this.#inner.get(key, options)
    if (name.startsWith(PREFIX) && this.#isOpen && changes === this.#changes && value.length <= ENTRY_BYTES_MAX) this.#remember(name, value)
    return value
  }

  override async has (key: Key, options?: AbortOptions): Promise<boolean> {
    return this.#entries.has(key.toString()) || await this.#inner.has(key, options)
  }

  override async delete (key: Key, options?: AbortOptions): Promise<void> {
    const name = key.toString()
    if (!name.startsWith(PREFIX)) { await this.#inner.delete(key, options); return }
    this.#changes++
    this.#entries.delete(name)
    this.#unwritten.delete(name)
    await this.#inTurn(async () => { await this.#inner.delete(key, options) })
    // Whoever read it meanwhile may have remembered it.
    this.#changes++
    if (!this.#unwritten.has(name)) this.#entries.delete(name)
  }

  override async * query (query: Query, options?: AbortOptions): AsyncGenerator<Pair> {
    await this.#writeFor(query)
    yield * this.#inner.query(query, options)
  }

  override async * queryKeys (query: KeyQuery, options?: AbortOptions): AsyncGenerator<Key> {
    await this.#writeFor(query)
    yield * this.#inner.queryKeys(query, options)
  }

  /** A query looks at the disk. One that takes nothing more can still be read. */
  async #writeFor ({ prefix = '' }: { prefix?: string }): Promise<void> {
    if (prefix.startsWith(PREFIX) || PREFIX.startsWith(prefix)) await this.#write().catch(error => { this.#warn(error) })
  }

  /** A copy: what comes in may be a view of something far larger. */
  #remember (name: string, value: Uint8Array): void {
    this.#entries.delete(name)
    this.#entries.set(name, new Uint8Array(value))
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= PEERS_REMEMBERED_MAX) return
      if (!this.#unwritten.has(oldest)) this.#entries.delete(oldest)
    }
  }

  #writeSoon (): void {
    this.#cancel ??= this.#components.clock.setTimeout(() => {
      this.#cancel = undefined
      // What could not be written is tried again with the next change.
      this.#write().catch(error => { this.#warn(error) })
    }, WRITE_AFTER_MS)
  }

  #disarm (): void {
    this.#cancel?.()
    this.#cancel = undefined
  }

  /** Writes what is unwritten. Throws what the disk says; nothing is forgotten then. */
  async #write (): Promise<void> {
    this.#disarm()
    await this.#inTurn(async () => {
      const written = new Map<string, Uint8Array>()
      const batch = this.#inner.batch()
      for (const name of this.#unwritten) {
        const value = this.#entries.get(name)
        if (value === undefined) continue
        batch.put(new Key(name, false), value)
        written.set(name, value)
      }
      if (written.size === 0) return
      await batch.commit()
      for (const [name, value] of written) if (this.#entries.get(name) === value) this.#unwritten.delete(name)
    })
  }

  async #inTurn<T> (work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work, work)
    this.#last = turn.catch(() => undefined) // told to whoever waits for this turn
    return await turn
  }

  #warn (error: unknown): void {
    this.#components.logger.warn({ error: asError(error).message }, 'what is known about peers could not be written')
  }
}
