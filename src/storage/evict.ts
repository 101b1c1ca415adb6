import { asError, throwIfAborted } from '../base/index.ts'
import type { ImportTarget } from './byte-store.ts'
import { withWorkSlot, type Core } from './core.ts'
import { diskError } from './disk-errors.ts'
import { sizeOfBlocks, type FileRecord } from './records.ts'
import type { FilePart } from './store.ts'

/** `target` has all but `gone` of the file as it was at that `generation`. */
interface Copy { target: ImportTarget, gone: ReadonlySet<number>, generation: number }

/**
 * Gives up parts of a file, together. What stays is copied into a new file that takes the place of the old one: holes cannot be made
 * from here, and somebody may have the old one open. Says how many bytes that freed; 0 while the file is being written, or when
 * something else happened to it meanwhile. Order: copied, synced, not shown, recorded as gone, swapped. Throws when the store stops.
 */
export async function evictParts (core: Core, file: FileRecord, parts: readonly FilePart[]): Promise<number> {
  if (!await roomFor(core, file.presentBytes - sizeOfBlocks(file, [...presentIn(file, parts)]))) return 0
  let done = (): void => undefined
  const remaking = new Promise<void>(resolve => { done = resolve })
  let copy: Copy | undefined
  try {
    // The slot first: whoever fills the file has one, and waits for `remaking` with it.
    await withWorkSlot(core, async slot => {
      for (let before: unknown; before !== file.remaking;) await (before = file.remaking)
      const gone = presentIn(file, parts)
      if (file.removed || file.writing.size > 0 || file.unsynced.size > 0 || gone.size === 0) return
      file.remaking = remaking // whoever writes waits for it
      copy = { target: await core.bytes.startImport(file.size, false), gone, generation: file.generation }
      for (const block of [...file.present].filter(block => !gone.has(block))) {
        throwIfAborted(core.stopping)
        if (!file.present.has(block)) continue // withdrawn meanwhile
        const offset = file.offsets[block] ?? 0
        await core.bytes.read(file, offset, slot.prepare(offset, file.index.sizes[block] ?? 0)) // what is wrong stays wrong, and the scrub finds it
        await copy.target.write(offset, slot)
      }
    })
    if (copy === undefined) return 0
    await copy.target.sync()
    if (!await swap(core, file, parts, copy)) return 0
  } finally {
    if (file.remaking === remaking) file.remaking = undefined
    done()
    await copy?.target.discard().catch(error => { core.logger.warn({ file: file.key, error: asError(error).message }, 'a copy stays behind until the next gc') })
  }
  const blocks = [...copy.gone]
  core.events.emit('blocks:lost', { file, blocks, evicted: true })
  return sizeOfBlocks(file, blocks)
}

function presentIn (file: FileRecord, parts: readonly FilePart[]): Set<number> {
  const blocks = new Set<number>()
  for (const { first, count } of parts) for (let block = first; block < first + count; block++) if (file.present.has(block)) blocks.add(block)
  return blocks
}

/** A copy needs room for a moment. */
async function roomFor (core: Core, bytes: number): Promise<boolean> {
  const space = await core.bytes.space()
  return bytes === 0 || space === undefined || bytes <= space.freeBytes - space.reserveBytes
}

async function swap ({ bytes, catalog, recording, registry, logger }: Core, file: FileRecord, parts: readonly FilePart[], { target, gone, generation }: Copy): Promise<boolean> {
  return await recording.run(async () => {
    if (file.removed || file.generation !== generation || !parts.every(part => registry.maySpare(file, part))) return false
    for (const block of gone) file.recorded.set(block, false)
    const presentBytes = file.presentBytes - sizeOfBlocks(file, [...gone].filter(block => file.present.has(block)))
    try {
      catalog.setPresence([{ id: file.id, key: file.key, present: file.recorded.bytes, presentBytes }], { durable: true })
    } catch (error) {
      for (const block of gone) file.recorded.set(block, file.present.has(block))
      throw error
    }
    for (const block of gone) file.present.set(block, false)
    file.presentBytes = presentBytes
    file.generation++ // a read that began before looks again
    try {
      await bytes.reopen(file)
      await bytes.adopt([{ target, key: file.key }])
    } catch (error) {
      // Recorded as gone, so it is; its bytes stay until the file is made anew.
      logger.warn({ file: file.key, error: diskError(error, 'cannot replace a file').message }, 'an evicted part still takes its room')
    }
    return true
  })
}
