import { NoProviderError, UpstreamMismatchError, asError, throwIfAborted } from '../base/index.ts'
import type { InstalmentFile } from './arrivals.ts'
import type { OriginComponents } from './components.ts'
import { LINGER_MS as INSTALMENT_LINGER_MS, type InstalmentBook } from './instalment-book.ts'
import type { KnownModel } from './known-model.ts'
import { SharedWork } from './shared-work.ts'
import type { ArrivedFile, UpstreamFile } from './types.ts'
import { checkHash, hashFor } from './upstream-model.ts'

export interface ComparisonComponents extends OriginComponents {
  book: InstalmentBook
  /** Names the model when all of it was compared. */
  linkWhole: (known: KnownModel, revision: string) => Promise<void>
  /** Ends when the node does. */
  signal: AbortSignal
}

/** Clients that were cut off come back in seconds. */
const LINGER_MS = 30_000

/** Loads files that peers say to have, and compares their bytes with what the upstream says, before anybody gets them. */
export class Comparisons {
  readonly #components: ComparisonComponents

  constructor (components: ComparisonComponents) { this.#components = components }

  /** The file is whole here, and its bytes are what the upstream says. */
  async verify (known: KnownModel, revision: string, path: string, signal: AbortSignal): Promise<void> {
    const { cid } = known
    if (cid === undefined) throw new NoProviderError(`${known.repo} has to be found first`)
    if (known.isVerified(cid, path)) return
    await this.#shared(known, cid, path, signal, async signal => { await this.#verify(known, revision, { cid, path, signal }) })
  }

  /** Many want the same file: it is compared once. */
  async #shared (known: KnownModel, cid: string, path: string, signal: AbortSignal, compare: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const name = `${cid}/${path}`
    let work = known.verifying.get(name)
    if (work === undefined || work.ended) {
      work = new SharedWork({ clock: this.#components.clock, lingerMs: LINGER_MS, signal: this.#components.signal }, compare)
      known.verifying.set(name, work)
      void work.over().then(() => { known.verifying.delete(name) })
    }
    await work.join(signal)
  }

  /** The file is there before its model is, and its bytes are what the upstream says. */
  async arrival (known: KnownModel, revision: string, path: string, signal: AbortSignal): Promise<ArrivedFile> {
    for (;;) {
      const place = await known.arrivals.take(path, signal)
      if (!('cid' in place)) return place
      const { cid } = place
      if (place.compared) {
        const file = this.#components.openWhole(cid, path)
        if (file !== undefined) return file
        known.arrivals.drop(path, cid) // evicted, or removed
        continue
      }
      try {
        await this.#shared(known, cid, path, signal, async signal => { await this.#compareInstalment(known, revision, path, place, signal) })
      } catch (error) {
        throwIfAborted(signal)
        known.arrivals.drop(path, cid) // it comes with the model
        this.#components.logger.warn({ repo: known.repo, path, cid, peerId: place.from, error: asError(error).message }, 'a file that a peer has published of a model that it fetches could not be had')
      }
    }
  }

  async #verify (known: KnownModel, revision: string, { cid, path, signal }: { cid: string, path: string, signal: AbortSignal }): Promise<void> {
    const file = fileOf(known, path)
    try {
      await this.#compare(known, file, { cid, from: known.holders, signal })
    } catch (error) {
      if (error instanceof UpstreamMismatchError && known.cid === cid) {
        this.#components.logger.warn({ repo: known.repo, cid, error: error.message }, 'a peer took another model for this one')
        known.forget()
        known.refused.add(cid)
        if (!known.wasHere) await this.#components.discard(cid)
      }
      throw error
    }
    if (known.cid !== cid) return
    known.verify(file)
    await this.#components.linkWhole(known, revision)
  }

  async #compareInstalment (known: KnownModel, revision: string, path: string, { cid, index, from }: InstalmentFile, signal: AbortSignal): Promise<void> {
    // It may be a model of a user here, by chance.
    if (this.#components.held(cid) === undefined) await this.#components.book.add(known.key, cid, 'others')
    try {
      await this.#compare(known, fileOf(known, path), { cid, from: known.fetcher, signal })
    } catch (error) {
      const isLie = error instanceof UpstreamMismatchError
      if (from !== undefined && (isLie || error instanceof NoProviderError)) known.strike(from, isLie)
      if (isLie) await this.#refuse(known, cid)
      throw error
    }
    if (index !== undefined) known.compared(path, index)
    if (known.cid === undefined) {
      known.arrivals.inModel(path, { cid, index, from, compared: true })
      return
    }
    // The model was found meanwhile.
    await this.#components.linkWhole(known, revision)
    await this.#components.book.retire(known.key, INSTALMENT_LINGER_MS)
  }

  /** What was here for another reason stays. */
  async #refuse (known: KnownModel, cid: string): Promise<void> {
    const { book, discard } = this.#components
    known.refused.add(cid)
    known.arrivals.refuse(cid)
    if (book.holds(known.key, cid) && await discard(cid)) await book.drop(known.key, cid)
  }

  /** Loads a file, and throws UpstreamMismatchError when its bytes are not what the upstream says. */
  async #compare (known: KnownModel, file: UpstreamFile, { cid, from, signal }: { cid: string, from: readonly string[], signal: AbortSignal }): Promise<void> {
    const hash = hashFor(file)
    for await (const bytes of this.#components.read(cid, file.path, { signal, from })) hash.update(bytes)
    checkHash(known.model, file, hash, cid)
  }
}

/** Throws TypeError. */
function fileOf (known: KnownModel, path: string): UpstreamFile {
  const file = known.model.files.find(file => file.path === path)
  if (file === undefined) throw new TypeError(`${path} is no file of ${known.repo}`)
  return file
}
