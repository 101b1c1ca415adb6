import { NodeStoppedError, throwIfAborted } from '../base/index.ts'
import { parseModelCid } from '../model/index.ts'
import { SharedLoad, type HintedOptions, type LoadComponents, type LoadHooks, type RangeOptions } from './shared-load.ts'
import type { NodeSettings, OpenModel, TransferStatus } from './types.ts'

/**
 * All loads of this node. Callers that load the same model share one fetch: each waits with its own signal, progress
 * and wanted files, and the fetch ends when the last one has left. What was fetched stays.
 */
export class Loads {
  readonly #components: LoadComponents
  readonly #settings: NodeSettings['transfer']
  readonly #hooks: LoadHooks
  readonly #shared = new Map<string, SharedLoad>()
  #stopped = false

  constructor (components: LoadComponents, settings: NodeSettings['transfer'], hooks: LoadHooks) {
    this.#components = components
    this.#settings = settings
    this.#hooks = hooks
  }

  get size (): number { return this.#shared.size }

  /**
   * Resolves when the model's files are known; their bytes may still be on their way (`done`, `waitFor`).
   * Throws InvalidCidError, NoProviderError, InvalidManifestError, UsageError, and what the store throws.
   */
  async open (text: string, options: HintedOptions | RangeOptions = {}): Promise<OpenModel> {
    if (this.#stopped) throw new NodeStoppedError('the node is stopping')
    throwIfAborted(options.signal)
    const cid = parseModelCid(text)
    const key = cid.toString()
    let shared = this.#shared.get(key)
    while (shared?.ending === true) {
      await shared.ended
      shared = this.#shared.get(key)
    }
    if (shared === undefined) {
      const created = new SharedLoad(this.#components, this.#settings, this.#hooks, { cid, from: options.from ?? [] })
      this.#shared.set(key, shared = created)
      void created.ended.finally(() => { if (this.#shared.get(key) === created) this.#shared.delete(key) })
    }
    return await shared.join(options)
  }

  transfers (): TransferStatus[] {
    return [...this.#shared.values()].filter(shared => !shared.idle).map(shared => shared.status())
  }

  /** True while somebody loads or reads it. */
  has (cid: string): boolean { return this.#shared.get(cid)?.idle === false }

  /** A load that nobody waits for any more has let go of its model when this resolves. */
  async settled (cid: string): Promise<void> {
    const shared = this.#shared.get(cid)
    if (shared?.ending === true) await shared.ended
  }

  async stop (): Promise<void> {
    this.#stopped = true
    const open = [...this.#shared.values()]
    await Promise.all(open.map(async shared => { await shared.end(new NodeStoppedError('the node is stopping; the load can be resumed when it is back')) }))
  }
}
