import type { CID } from 'multiformats/cid'
import { DESCRIBED_FILES_MAX, NodeStoppedError, throwIfAborted, withSignal } from '../base/index.ts'
import { parseModelCid, type FileIndex, type Manifest } from '../model/index.ts'
import type { ModelStore } from '../storage/store.ts'
import { Finding, findModel, type FindComponents } from './find-model.ts'
import type { DescribeOptions, ModelDescription } from './types.ts'

/** Of the parts of this node. */
export interface HintedDescribeOptions extends DescribeOptions {
  /** Peers that are said to have it: asked first. */
  from?: readonly string[]
}

/** One search for a model, and those who wait for it. */
interface Search {
  readonly finding: Finding
  readonly stop: AbortController
  readonly description: Promise<ModelDescription>
  waiting: number
}

/**
 * What models are made of, from their manifests and file indexes alone: of those held here at once, of others after a
 * search, and no block is fetched for it. A description follows from the CID, so it never goes stale; the ones used last
 * are kept.
 */
export class Descriptions {
  readonly #components: FindComponents & { store: ModelStore }
  readonly #timeoutMs: number
  readonly #known = new Map<string, ModelDescription>()
  readonly #searches = new Map<string, Search>()
  #files = 0
  #stopped = false

  constructor (components: FindComponents & { store: ModelStore }, settings: { providerTimeoutMs: number }) {
    this.#components = components
    this.#timeoutMs = settings.providerTimeoutMs
  }

  /** Throws InvalidCidError, NoProviderError when nobody had it in time, InvalidManifestError. */
  async describe (text: string, options: HintedDescribeOptions = {}): Promise<ModelDescription> {
    if (this.#stopped) throw new NodeStoppedError('the node is stopping')
    throwIfAborted(options.signal)
    const cid = parseModelCid(text)
    const key = cid.toString()
    const known = this.#known.get(key)
    if (known !== undefined) {
      this.#known.delete(key) // to the end: used last
      this.#known.set(key, known)
      return known
    }
    const held = this.#components.store.model(key)
    if (held !== undefined) return this.#keep(describe(key, held.manifest.value, held.files.map(file => file.index)))
    return await this.#wait(this.#searches.get(key) ?? this.#search(key, cid, options.from ?? []), options)
  }

  stop (): void {
    this.#stopped = true
    for (const { stop } of this.#searches.values()) stop.abort(new NodeStoppedError('the node is stopping'))
  }

  #search (key: string, cid: CID, hints: readonly string[]): Search {
    const finding = new Finding(cid)
    const stop = new AbortController()
    const description = findModel(this.#components, cid, finding, { signal: stop.signal, hints }).then(({ model }) =>
      this.#keep(describe(key, model.manifest.value, model.indexes.map(index => index.value)))
    )
    const search: Search = { finding, stop, description, waiting: 0 }
    this.#searches.set(key, search)
    description.catch(() => undefined).finally(() => { if (this.#searches.get(key) === search) this.#searches.delete(key) })
    return search
  }

  /** As long as this caller wants to; the search ends with the last who waits. */
  async #wait (search: Search, { signal, providerTimeoutMs = this.#timeoutMs }: DescribeOptions): Promise<ModelDescription> {
    const late = new AbortController()
    const cancel = this.#components.clock.setTimeout(() => { late.abort(search.finding.nobody()) }, Math.min(providerTimeoutMs, this.#timeoutMs))
    search.waiting++
    try {
      return await withSignal(search.description, signal === undefined ? late.signal : AbortSignal.any([signal, late.signal]))
    } finally {
      cancel()
      search.waiting--
      if (search.waiting === 0) {
        for (const [key, other] of this.#searches) if (other === search) this.#searches.delete(key)
        search.stop.abort(new NodeStoppedError('nobody waits for this description any more'))
      }
    }
  }

  #keep (description: ModelDescription): ModelDescription {
    if (!this.#known.has(description.cid)) this.#files += description.files.length
    this.#known.set(description.cid, description)
    for (const [key, oldest] of this.#known) {
      if (this.#files <= DESCRIBED_FILES_MAX || this.#known.size === 1) break
      this.#known.delete(key)
      this.#files -= oldest.files.length
    }
    return description
  }
}

function describe (cid: string, manifest: Manifest, indexes: readonly FileIndex[]): ModelDescription {
  return {
    cid,
    files: manifest.files.map(({ path, size, index }, position) => {
      const { sha256, gitSha1 } = indexes[position] ?? {}
      return { path, size, sha256: hex(sha256), gitSha1: gitSha1 === undefined ? undefined : hex(gitSha1), index: index.toString() }
    })
  }
}

function hex (bytes: Uint8Array | undefined): string {
  return Buffer.from(bytes ?? []).toString('hex')
}

