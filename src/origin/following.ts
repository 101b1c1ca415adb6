import { ORIGIN_INSTALMENTS_MAX, UpstreamMismatchError, asError, throwIfAborted, type Clock, type Logger } from '../base/index.ts'
import { DESCRIBE_MS, checkDescription } from './check-description.ts'
import type { Describe } from './components.ts'
import type { KnownModel } from './known-model.ts'
import type { OriginSwarm } from './swarm.ts'

export interface FollowingComponents {
  swarm: OriginSwarm
  clock: Clock
  logger: Logger
  describe: Describe
}

/** Of one revision, from whoever fetches it: each costs a search when it is a lie. */
const LOOKED_AT_MAX = 2 * ORIGIN_INSTALMENTS_MAX

/** Learns which files of a model a peer has published that fetches it, so that readers here can load those while the rest is on its way. */
export class Following {
  readonly #components: FollowingComponents
  readonly #known: KnownModel
  readonly #signal: AbortSignal
  readonly #seen = new Set<string>()
  #running: Promise<void> | undefined

  constructor (components: FollowingComponents, known: KnownModel, signal: AbortSignal) {
    this.#components = components
    this.#known = known
    this.#signal = signal
  }

  /** Asks it, unless the last question is still open. */
  look (peerId: string): void {
    this.#running ??= this.#look(peerId).catch(() => undefined /* nobody waits for it any more */).then(() => { this.#running = undefined })
  }

  /** After its signal. */
  async over (): Promise<void> { await this.#running }

  async #look (peerId: string): Promise<void> {
    const { swarm, clock, logger } = this.#components
    const known = this.#known
    const cids = await swarm.instalments(peerId, known.key, this.#signal)
    for (const cid of cids) {
      if (this.#seen.size >= LOOKED_AT_MAX) return
      if (this.#seen.has(cid) || known.liars.has(peerId) || !known.looksFor(cid, clock.monotonic())) continue
      try {
        await this.#learn(cid, peerId)
        this.#seen.add(cid)
      } catch (error) {
        throwIfAborted(this.#signal)
        if (error instanceof UpstreamMismatchError) known.liars.add(peerId)
        else known.miss(cid, clock.monotonic())
        logger.info({ peerId, cid, repo: known.repo, error: asError(error).message }, 'what a peer has published of a model that it fetches is not loaded')
      }
    }
  }

  async #learn (cid: string, peerId: string): Promise<void> {
    const described = await this.#components.describe(cid, { signal: this.#signal, from: [peerId], providerTimeoutMs: DESCRIBE_MS })
    checkDescription(this.#known, described, peerId, 'some')
    for (const { path, index } of described.files) this.#known.arrivals.inModel(path, { cid, index, from: peerId, compared: false })
  }
}
