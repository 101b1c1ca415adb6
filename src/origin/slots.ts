import { UPSTREAM_FETCHES_MAX, UPSTREAM_SMALL_BYTES_MAX, UPSTREAM_SMALL_FETCHES_MAX } from '../base/index.ts'
import type { UpstreamModel } from './types.ts'
import { bytesOf } from './upstream-model.ts'

/**
 * The fetches that this node may run at once. Small models have slots of their own: large ones take hours, and who asks for an adapter or
 * a configuration meanwhile gives up after ten seconds.
 */
export class FetchSlots {
  readonly #large = { running: 0, max: UPSTREAM_FETCHES_MAX }
  readonly #small = { running: 0, max: UPSTREAM_SMALL_FETCHES_MAX }

  hasOne (model: Pick<UpstreamModel, 'files'>): boolean {
    const { running, max } = this.#kind(model)
    return running < max
  }

  /** Until the returned function is called, once. */
  take (model: Pick<UpstreamModel, 'files'>): () => void {
    const kind = this.#kind(model)
    kind.running++
    return () => { kind.running-- }
  }

  #kind (model: Pick<UpstreamModel, 'files'>): { running: number, readonly max: number } {
    return bytesOf(model) > UPSTREAM_SMALL_BYTES_MAX ? this.#large : this.#small
  }
}
