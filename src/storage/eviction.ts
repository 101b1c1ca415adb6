import type { FileRecord, ModelRecord } from './records.ts'
import type { RemoveResult } from './store.ts'

/** Of files. */
export interface Keys { has: (key: string) => boolean }

export interface EvictionState {
  models: Iterable<ModelRecord>
  /** Loads and reads in progress keep their models. */
  isHeld: (cid: string) => boolean
  /** Somebody promised others to keep parts of it. */
  isKept: (cid: string) => boolean
  /** Files that stay whatever is evicted: a model on its way in names them too. */
  keep: Keys
}

export interface EvictionPlan {
  /** In the order of eviction. */
  models: ModelRecord[]
  freedBytes: number
}

/**
 * Which cached models to give up so that `bytes` become free: least recently used first, never a pinned, published,
 * kept or held one. Frees what it can when that is not enough; the caller compares. Pure.
 */
export function planEviction ({ models, isHeld, isKept, keep }: EvictionState, bytes: number): EvictionPlan {
  const candidates = Array.from(models)
    .filter(model => !model.pinned && !model.published && !isHeld(model.cid) && !isKept(model.cid))
    .sort((a, b) => a.usedAt - b.usedAt) // stable: of two used in the same millisecond, the one that is here longer
  const plan: EvictionPlan = { models: [], freedBytes: 0 }
  const evicted = new Set<ModelRecord>()
  for (const model of candidates) {
    if (plan.freedBytes >= bytes) break
    evicted.add(model)
    const freed = freedBy(evicted, model, keep)
    if (freed === 0) {
      evicted.delete(model) // nothing of its own: giving it up would help nobody
      continue
    }
    plan.models.push(model)
    plan.freedBytes += freed
  }
  return plan
}

/** Bytes of the files of `last` that no model outside `removed` names. */
function freedBy (removed: ReadonlySet<ModelRecord>, last: ModelRecord, keep: Keys): number {
  let bytes = 0
  for (const file of last.distinct) {
    if (!keep.has(file.key) && !file.inPlace && namedOnlyBy(file, removed)) bytes += file.presentBytes
  }
  return bytes
}

function namedOnlyBy (file: FileRecord, models: ReadonlySet<ModelRecord>): boolean {
  for (const model of file.models) if (!models.has(model)) return false
  return true
}

/** The files that no model names when these go, and what each model frees when they go in this order. Looks at each file of each model once. */
export function leaving (models: readonly ModelRecord[], keep: Keys): { files: FileRecord[], results: RemoveResult[] } {
  const files: FileRecord[] = []
  const named = new Map<FileRecord, number>()
  const results = models.map(model => {
    let freedBytes = 0
    for (const file of model.distinct) {
      const left = (named.get(file) ?? file.models.size) - 1
      named.set(file, left)
      if (left > 0 || keep.has(file.key)) continue
      files.push(file)
      if (!file.inPlace) freedBytes += file.presentBytes
    }
    return { cid: model.cid, freedBytes }
  })
  return { files, results }
}
