import { asError } from '../base/index.ts'
import { withWorkSlot, type Core } from './core.ts'
import { diskError } from './disk-errors.ts'
import { sizeOfBlocks, type FileRecord } from './records.ts'
import type { FilePart } from './store.ts'

/**
 * Gives up a part of a file. What stays is copied into a new file that takes the place of the old one: holes cannot be made
 * from here, and somebody may have the old one open. Says how many bytes that freed; 0 while the file is being written, or when
 * something else happened to it meanwhile. Order: copied, synced, not shown, recorded as gone, swapped.
 */
export async function evictPart (core: Core, file: FileRecord, { first, count }: FilePart): Promise<number> {
  await file.remaking
  if (file.removed || file.writing.size > 0 || file.unsynced.size > 0) return 0
  const gone: number[] = []
  for (let block = first; block < first + count; block++) if (file.present.has(block)) gone.push(block)
  if (gone.length === 0 || !await roomFor(core, file.presentBytes - sizeOfBlocks(file, gone)) || file.writing.size > 0 || file.unsynced.size > 0) return 0
  const evicting = evict(core, file, new Set(gone))
  const remaking = evicting.then(() => undefined, () => undefined)
  file.remaking = remaking // whoever writes waits for it
  try {
    if (!await evicting) return 0
  } finally {
    if (file.remaking === remaking) file.remaking = undefined
  }
  core.events.emit('blocks:lost', { file, blocks: gone, evicted: true })
  return sizeOfBlocks(file, gone)
}

/** A copy needs room for a moment. */
async function roomFor (core: Core, bytes: number): Promise<boolean> {
  const space = await core.bytes.space()
  return bytes === 0 || space === undefined || bytes <= space.freeBytes - space.reserveBytes
}

async function evict (core: Core, file: FileRecord, gone: ReadonlySet<number>): Promise<boolean> {
  const { bytes, catalog, recording } = core
  const { generation } = file
  const stays = [...file.present].filter(block => !gone.has(block))
  const target = await bytes.startImport(file.size, false)
  try {
    await withWorkSlot(core, async slot => {
      for (const block of stays) {
        if (!file.present.has(block)) continue // withdrawn meanwhile
        const offset = file.offsets[block] ?? 0
        await bytes.read(file, offset, slot.prepare(offset, file.index.sizes[block] ?? 0)) // what is wrong stays wrong, and the scrub finds it
        await target.write(offset, slot)
      }
    })
    await target.sync()
    return await recording.run(async () => {
      if (file.removed || file.generation !== generation || file.inPlace) return false
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
        core.logger.warn({ file: file.key, error: diskError(error, 'cannot replace a file').message }, 'an evicted part still takes its room')
      }
      return true
    })
  } finally {
    await target.discard().catch(error => { core.logger.warn({ error: asError(error).message }, 'a copy stays behind until the next gc') })
  }
}
