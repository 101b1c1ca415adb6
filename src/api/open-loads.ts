import { UsageError, type AbortOptions } from '../base/index.ts'
import type { OpenModel, ShoalNode } from '../node/types.ts'
import type { WaitRange } from './types.ts'

/** The loads that clients of this server have open, by model: what a `wait` for a range can join. */
export class OpenLoads {
  readonly #open = new Map<string, Set<OpenModel>>()

  add (model: OpenModel): void {
    const set = this.#open.get(model.cid) ?? new Set()
    this.#open.set(model.cid, set.add(model))
  }

  delete (model: OpenModel): void {
    const set = this.#open.get(model.cid)
    if (set?.delete(model) === true && set.size === 0) this.#open.delete(model.cid)
  }

  /** Waits in an open load, best in one that wants the file; a complete model needs none. Throws UsageError otherwise. */
  async wait (node: ShoalNode, cid: string, { path, offset, length }: WaitRange, options: AbortOptions): Promise<void> {
    const open = [...this.#open.get(cid) ?? []]
    const load = open.find(model => model.files.some(file => file.path === path && file.wanted)) ?? open[0]
    if (load !== undefined) {
      await load.waitFor(path, offset, length, options)
      return
    }
    if (node.models().find(model => model.cid === cid)?.complete !== true) {
      throw new UsageError(`nobody loads ${cid} now, so a range of it cannot be waited for; open it first and keep that load open`)
    }
    const model = await node.open(cid, options)
    try {
      await model.waitFor(path, offset, length, options)
    } finally {
      model.close()
    }
  }
}
