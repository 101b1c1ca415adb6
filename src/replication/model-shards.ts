import type { StoredFile, StoredModel } from '../storage/store.ts'
import { shardRuns } from '../model/index.ts'

/** One shard of a model and where it lies. */
export interface PlacedShard {
  /** Its number within the model. */
  number: number
  file: StoredFile
  /** Of the first path in the manifest that has this file. */
  position: number
  /** Blocks `first` to `first + count - 1` of the file. */
  first: number
  count: number
  /** Bytes into the file, and how many. */
  offset: number
  bytes: number
}

/**
 * The shards of a model by their numbers: those of its distinct files, in the order of the manifest. Every node that
 * has the manifest and the indexes counts alike.
 */
export class ModelShards {
  readonly all: readonly PlacedShard[]
  readonly bytes: readonly number[]
  readonly #byFile = new Map<StoredFile, PlacedShard[]>()

  constructor (model: StoredModel) {
    const all: PlacedShard[] = []
    const seen = new Set<StoredFile>()
    for (const [position, file] of model.files.entries()) {
      if (seen.has(file)) continue
      seen.add(file)
      const placed = shardRuns(file.index).map(({ first, count, bytes }, at) => ({ number: all.length + at, file, position, first, count, offset: file.offsets[first] ?? 0, bytes }))
      this.#byFile.set(file, placed)
      for (const shard of placed) all.push(shard)
    }
    this.all = all
    this.bytes = all.map(shard => shard.bytes)
  }

  /** Those of one file; none when it is not of this model. */
  ofFile (file: StoredFile): readonly PlacedShard[] { return this.#byFile.get(file) ?? [] }

  /** Numbers of the shards of which every block is recorded. */
  held (): number[] {
    return this.all.filter(isComplete).map(({ number }) => number)
  }
}

export function isComplete ({ file, first, count }: PlacedShard): boolean {
  if (file.present.full) return true
  for (let block = first; block < first + count; block++) if (!file.present.has(block)) return false
  return true
}

/** Bytes of the shard that are not recorded. */
export function missingBytes ({ file, first, count, bytes }: PlacedShard): number {
  if (file.present.full) return 0
  let missing = 0
  for (let block = first; block < first + count; block++) if (!file.present.has(block)) missing += file.index.sizes[block] ?? 0
  return Math.min(bytes, missing)
}

/** Numbering looks at every block, so it is done once for each model that is here. */
export class ShardsByModel {
  readonly #known = new WeakMap<StoredModel, ModelShards>()

  of (model: StoredModel): ModelShards {
    let shards = this.#known.get(model)
    if (shards === undefined) this.#known.set(model, shards = new ModelShards(model))
    return shards
  }
}
