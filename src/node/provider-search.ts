import type { CID } from 'multiformats/cid'
import { asError } from '../base/index.ts'
import type { ModelFetch } from '../transfer/types.ts'
import { candidates, neighbours, type FindComponents } from './find-model.ts'

/** Between two searches for more providers while blocks are lacking that no known peer has. */
const SEARCH_AGAIN_MS = 2_000
/**
 * Between two searches while a load runs well: nodes that began to load meanwhile help too. Soon at first, because many
 * nodes tend to start on a new model together, then ever more rarely.
 */
const SEARCH_MORE_FIRST_MS = 500
const SEARCH_MORE_MAX_MS = 15_000
/** So many that have some of it are enough not to be in a hurry. */
const PEERS_ENOUGH = 4

/** Looks for providers of a model, again and again, as long as a fetch of it runs. */
export class ProviderSearch {
  readonly #components: FindComponents
  readonly #cid: CID
  /** Aborts when nobody loads the model any more. */
  readonly #signal: AbortSignal
  readonly #asked = new Set<string>()
  #fetch: ModelFetch | undefined
  #searching = false
  #againMs = SEARCH_MORE_FIRST_MS
  #starvedSince: number | undefined
  #cancel: () => void = () => undefined

  constructor (components: FindComponents, cid: CID, signal: AbortSignal) {
    this.#components = components
    this.#cid = cid
    this.#signal = signal
  }

  /** Peers that were asked. */
  get asked (): number { return this.#asked.size }

  /** Peers that somebody names. */
  hint (peerIds: Iterable<string>): void {
    for (const peerId of peerIds) {
      this.#asked.add(peerId)
      this.#fetch?.addPeer(peerId)
    }
  }

  begin (fetch: ModelFetch): void {
    this.#fetch = fetch
    this.#starvedSince = undefined
    this.#againMs = SEARCH_MORE_FIRST_MS
    this.hint([...this.#asked, ...neighbours(this.#components)])
    // Whoever gave the manifest most likely has the rest, and who has nothing is searched past at once (`starves`).
    if (this.#asked.size > 0) this.#searchIn(SEARCH_MORE_FIRST_MS)
    else this.search()
  }

  end (): void {
    this.#fetch = undefined
    this.#cancel()
  }

  /** The fetch lacks what no known peer has. Says for how long that has been so, in milliseconds. */
  starves (): number {
    const now = this.#components.clock.monotonic()
    this.#starvedSince ??= now
    return now - this.#starvedSince
  }

  /** Something has come, or whoever waited was told that nothing does. */
  starvesNoMore (): void { this.#starvedSince = undefined }


  /** Searches now, unless that is under way. */
  search (): void {
    if (this.#fetch === undefined || this.#searching || this.#signal.aborted) return
    this.#searching = true
    this.#cancel()
    // Who is found while others deliver has most likely begun to load just now, and finds this node, too.
    const isUrgent = this.#starvedSince !== undefined || this.#fetch.stats().fetchedBytes === 0
    const run = async (): Promise<void> => {
      for await (const peerId of candidates(this.#components, this.#cid, this.#asked, this.#signal)) {
        this.#asked.add(peerId)
        if (isUrgent) this.#fetch?.addPeer(peerId)
        else this.#fetch?.expectPeer(peerId)
      }
    }
    run().catch(error => { this.#components.logger.debug({ cid: this.#cid.toString(), error: asError(error).message }, 'search for providers failed') }).finally(() => {
      this.#searching = false
      if (this.#fetch === undefined) return
      this.#searchIn(this.#starvedSince === undefined ? this.#againMs : SEARCH_AGAIN_MS)
      this.#againMs = Math.min(SEARCH_MORE_MAX_MS, this.#againMs * 2)
    })
  }

  /** Searches then, or, with enough peers, when it is time for who began meanwhile. */
  #searchIn (waitMs: number): void {
    this.#cancel()
    this.#cancel = this.#components.clock.setTimeout(() => {
      const isHelped = this.#starvedSince === undefined && (this.#fetch?.stats().readyPeers ?? 0) >= PEERS_ENOUGH
      if (!isHelped || waitMs >= SEARCH_MORE_MAX_MS) this.search()
      else this.#searchIn(this.#againMs = SEARCH_MORE_MAX_MS)
    }, waitMs)
  }
}
