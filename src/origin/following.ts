import { AbortError, DESCRIBE_MS, ORIGIN_INSTALMENTS_MAX, UpstreamMismatchError, asError, throwIfAborted, type Clock, type Logger } from '../base/index.ts'
import { checkDescription } from './check-description.ts'
import type { Describe } from './components.ts'
import type { KnownModel } from './known-model.ts'
import type { OriginSwarm } from './swarm.ts'

export interface FollowingComponents {
  swarm: OriginSwarm
  clock: Clock
  logger: Logger
  describe: Describe
}

/** Descriptions asked for while one revision is followed, of whomever: each costs a search when it is a lie. */
const ATTEMPTS_MAX = 4 * ORIGIN_INSTALMENTS_MAX

/** Learns which files of a model a peer has published that fetches it, so that readers here can load those while the rest is on its way. */
export class Following {
  readonly #components: FollowingComponents
  readonly #known: KnownModel
  readonly #signal: AbortSignal
  #attempts = 0
  #running: { peerId: string, over: AbortController, done: Promise<void> } | undefined

  constructor (components: FollowingComponents, known: KnownModel, signal: AbortSignal) {
    this.#components = components
    this.#known = known
    this.#signal = signal
    known.pardon()
  }

  /** Asks it, unless the last question to it is still open. Whom it asked before is not waited for any more. */
  look (peerId: string): void {
    if (this.#running?.peerId === peerId) return
    this.#running?.over.abort(new AbortError('another peer fetches it'))
    const over = new AbortController()
    const before = this.#running?.done ?? Promise.resolve()
    const done = this.#look(peerId, AbortSignal.any([this.#signal, over.signal])).catch(() => undefined /* nobody waits for it any more */).then(async () => {
      if (this.#running?.over === over) this.#running = undefined
      await before
    })
    this.#running = { peerId, over, done }
  }

  /** After its signal. */
  async over (): Promise<void> { await this.#running?.done }

  async #look (peerId: string, signal: AbortSignal): Promise<void> {
    const { swarm, logger } = this.#components
    const known = this.#known
    if (!known.takesFrom(peerId)) return
    for (const cid of await swarm.instalments(peerId, known.key, signal)) {
      if (this.#attempts >= ATTEMPTS_MAX || !known.takesFrom(peerId)) return
      if (known.arrivals.knows(cid) || known.refused.has(cid)) continue
      this.#attempts++
      try {
        await this.#learn(cid, peerId, signal)
      } catch (error) {
        throwIfAborted(signal)
        known.strike(peerId, error instanceof UpstreamMismatchError)
        logger.info({ peerId, cid, repo: known.repo, error: asError(error).message }, 'what a peer has published of a model that it fetches is not loaded')
      }
    }
  }

  async #learn (cid: string, peerId: string, signal: AbortSignal): Promise<void> {
    const described = await this.#components.describe(cid, { signal, from: [peerId], providerTimeoutMs: DESCRIBE_MS })
    checkDescription(this.#known, described, peerId, 'some')
    this.#known.arrivals.learned(cid)
    for (const { path, index } of described.files) this.#known.arrivals.inModel(path, { cid, index, from: peerId, compared: false })
  }
}
