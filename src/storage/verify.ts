import { ModelNotFoundError, asError, throwIfAborted, type AbortOptions, type ProgressOptions } from '../base/index.ts'
import { verifyBytes } from '../model/index.ts'
import type { Blocks } from './blocks.ts'
import { recordOf, withWorkSlot, type Core } from './core.ts'
import { isUnreadable } from './disk-errors.ts'
import type { FileRecord } from './records.ts'
import type { BadBlock, RangeVerifyResult, StoredFile, VerifyProgress, VerifyResult } from './store.ts'

/** Blocks read and hashed at once: one is read while the other is hashed. */
const VERIFY_CONCURRENCY = 2

/** Re-hashes what is recorded, of one model or of all, and withdraws what is not what it should be. */
export async function verifyHeld (core: Core, blocks: Blocks, cid: string | undefined, options: AbortOptions & ProgressOptions<VerifyProgress> = {}): Promise<VerifyResult> {
  throwIfAborted(options.signal)
  const { models, files } = core.registry
  const model = cid === undefined ? undefined : models.get(cid)
  if (cid !== undefined && model === undefined) throw new ModelNotFoundError(`this node does not hold the model ${cid}; see what it holds with: shoal ls`)

  const work = [...model?.distinct ?? files.values()].filter(file => file.models.size > 0).map(file => ({ file, held: [...file.present] }))
  // What is wrong with one block may cost the whole file: the store tells of each that it withdraws.
  const lost = new Map<string, Map<number, string>>(work.map(({ file }) => [file.key, new Map()]))
  const off = core.events.on('blocks:lost', ({ file, blocks, evicted, reason }) => {
    if (evicted !== true) for (const block of blocks) lost.get(file.key)?.set(block, reason ?? 'it was withdrawn meanwhile')
  })
  const progress: VerifyProgress = { bytesDone: 0, bytesTotal: work.reduce((sum, { file }) => sum + file.presentBytes, 0) }
  const result: VerifyResult = { blocks: 0, bytes: 0, bad: [] }
  const queue = blocksOf(work)
  const run = async (): Promise<void> => {
    for (let next = queue.next(); next.done !== true; next = queue.next()) {
      throwIfAborted(options.signal)
      const { file, block } = next.value
      const checked = await check(core, blocks, file, block)
      progress.bytesDone += checked.bytes
      options.onProgress?.({ ...progress })
      if (checked.unchecked !== undefined) { noteUnchecked(result, checked.unchecked); continue }
      if (checked.gone && (file.removed || lost.get(file.key)?.has(block) !== true)) continue
      result.blocks++
      result.bytes += checked.bytes
    }
  }
  const outcomes = await Promise.allSettled(Array.from({ length: VERIFY_CONCURRENCY }, run)).finally(off)
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw asError(outcome.reason)
  for (const { file, held } of work) {
    if (file.removed) continue
    for (const block of held) {
      const reason = lost.get(file.key)?.get(block)
      if (reason !== undefined) result.bad.push(badBlock(file, block, reason, cid))
    }
  }
  result.bad.sort((a, b) => (a.model < b.model ? -1 : a.model > b.model ? 1 : a.path < b.path ? -1 : a.path > b.path ? 1 : a.block - b.block))
  return result
}

/** The same for a run of blocks of one file, one after the other: nobody waits for it. */
export async function verifyRange (core: Core, blocks: Blocks, stored: StoredFile, { first, count, signal }: { first: number, count: number, signal: AbortSignal }): Promise<RangeVerifyResult> {
  const file = recordOf(core, stored)
  const result: RangeVerifyResult = { blocks: 0, bytes: 0, bad: [] }
  const held = [...file.present].filter(block => block >= first && block < first + count)
  const lost = new Set<number>()
  const off = core.events.on('blocks:lost', ({ file: { key }, blocks, evicted }) => {
    if (key === file.key && evicted !== true) for (const block of blocks) lost.add(block)
  })
  try {
    for (const block of held) {
      throwIfAborted(signal)
      const checked = await check(core, blocks, file, block)
      if (checked.unchecked !== undefined) { noteUnchecked(result, checked.unchecked); continue }
      if (checked.gone && (file.removed || !lost.has(block))) continue
      result.blocks++
      result.bytes += checked.bytes
    }
  } finally {
    off()
  }
  if (!file.removed) result.bad.push(...held.filter(block => lost.has(block)))
  return result
}

function * blocksOf (work: Array<{ file: FileRecord, held: number[] }>): Generator<{ file: FileRecord, block: number }> {
  for (const { file, held } of work) for (const block of held) yield { file, block }
}

function noteUnchecked (result: VerifyResult | RangeVerifyResult, reason: string): void {
  result.unchecked ??= { blocks: 0, reason }
  result.unchecked.blocks++
}

/** `reason` says what is wrong with it; `gone`: it was removed or withdrawn meanwhile, by others or with its whole file. */
interface Checked { bytes: number, gone: boolean, reason?: string, /** Why it could not be looked at. */ unchecked?: string }

/** Withdraws what is proven bad, and nothing else: a file in place, and where it is, cannot be had back. */
async function check (core: Core, blocks: Blocks, file: FileRecord, block: number): Promise<Checked> {
  const { index, offsets } = file.details
  const bytes = index.sizes[block] ?? 0
  const cid = index.blocks.at(block)
  if (cid === undefined || file.removed || !file.present.has(block)) return { bytes, gone: true }
  return await withWorkSlot(core, async slot => {
    let reason: string | undefined
    try {
      reason = await blocks.tryRead({ file, block, offset: offsets[block] ?? 0, size: bytes }, slot)
    } catch (error) {
      reason = asError(error).message
      if (!file.removed && file.present.has(block)) { // else it was withdrawn, and only that could not be recorded
        if (file.inPlace || !isUnreadable(error)) return { bytes, gone: false, unchecked: reason }
        await withdrawn(core, blocks, { file, block, reason })
      }
      return { bytes, gone: file.removed, reason }
    }
    if (reason === undefined && !verifyBytes(cid, slot.bytes)) {
      reason = 'its bytes hash to something else'
      await withdrawn(core, blocks, { file, block, reason })
    }
    return { bytes, gone: file.removed, reason }
  })
}

/** What cannot be recorded is recorded later: the volume says by itself what is wrong with it. */
async function withdrawn (core: Core, blocks: Blocks, { file, block, reason }: { file: FileRecord, block: number, reason: string }): Promise<void> {
  await blocks.withdraw(file, [block], reason).catch(error => {
    core.logger.warn({ file: file.key, block, error: asError(error).message }, 'a bad block is withdrawn and not yet recorded as such')
  })
}

function badBlock (file: FileRecord, block: number, reason: string, cid: string | undefined): BadBlock {
  const model = [...file.models].find(candidate => cid === undefined || candidate.cid === cid)
  return {
    model: model?.cid ?? '',
    path: model?.pathsOf(file)[0] ?? '',
    block,
    cid: file.index.blocks.at(block)?.toString() ?? '',
    reason
  }
}
