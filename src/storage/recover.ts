import { rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { CID } from 'multiformats/cid'
import { Bitfield, DiskError, HashMismatchError, InvalidManifestError, asError, syncDirectory, throwIfAborted } from '../base/index.ts'
import { decodeFileIndex, verifyBytes } from '../model/index.ts'
import type { Blocks } from './blocks.ts'
import type { ByteStore, SavedModel } from './byte-store.ts'
import { UnknownSchemaError, type Catalog } from './catalog.ts'
import { LINKS_AT_ONCE, inParallel } from './concurrency.ts'
import { withWorkSlot, type Core } from './core.ts'
import { isCatalogCorrupt, isUnreadable } from './disk-errors.ts'
import { GuardBrokenError, readGuarded } from './in-place.ts'
import type { Places } from './places.ts'
import { offsetsOf, type FileDetails, type FileRecord } from './records.ts'

/** How much is hashed between two notes of how far it got, so that a long rescan can be cut short and go on. */
const RESCAN_STEP_BYTES = 256 * 1024 * 1024

/**
 * Sets a catalog aside that cannot be read, or no more be trusted. Its log goes later than itself: cut short, a log without a catalog
 * means nothing to SQLite, but a catalog without its log would be believed, and is that of an earlier day.
 */
export async function setCatalogAside (path: string): Promise<void> {
  await rename(path, `${path}.damaged`)
  await syncDirectory(dirname(path))
  for (const suffix of ['-wal', '-shm']) await rm(path + suffix, { force: true })
  await syncDirectory(dirname(path)) // or the old log could stand beside the new catalog
}

export function isDamage (error: unknown): boolean {
  return error instanceof UnknownSchemaError || error instanceof HashMismatchError || error instanceof InvalidManifestError || isCatalogCorrupt(error)
}

/** Fills the catalog from what was kept of the models. Their blocks are found out by `rescan`. Can be cut short and go on. */
export async function rebuildCatalog (catalog: Catalog, bytes: ByteStore, signal: AbortSignal): Promise<number> {
  const files = new Set(Array.from(catalog.files(), ({ key }) => key))
  const models = new Set(catalog.models().map(({ cid }) => cid))
  let count = 0
  for await (const saved of bytes.savedModels()) {
    throwIfAborted(signal)
    count++
    await addSaved(catalog, saved, files, models)
  }
  return count
}

async function addSaved (catalog: Catalog, { model, pinned, published, addedAt, guards, others }: SavedModel, files: Set<string>, models: Set<string>): Promise<void> {
  for (const index of model.indexes) {
    const key = index.cid.toString()
    if (files.has(key)) continue
    files.add(key)
    const present = new Bitfield(index.value.blocks.length).bytes
    const file = { index, present, presentBytes: 0, rescan: 0, guard: guards.get(key), others: others.get(key) }
    await catalog.addFiles([{ file, offsets: offsetsOf(index.value.sizes) }])
  }
  const cid = model.manifest.cid.toString()
  if (!models.has(cid)) catalog.addModel(model.manifest, { cid, pinned, published, addedAt, usedAt: addedAt })
  models.add(cid)
}

/** A file index as the catalog has it. */
export function loadDetails (catalog: Catalog, key: string): FileDetails {
  const bytes = catalog.metadata(key)
  if (bytes === undefined) throw new UnknownSchemaError(`the catalog lacks the file index ${key}`)
  const { value } = decodeFileIndex(CID.parse(key), bytes)
  return { index: value, offsets: offsetsOf(value.sizes) }
}

/**
 * Finds out what has become of the files since they were recorded. One that cannot be looked at, on a failing disk or a
 * dead mount, does not keep the rest from being used.
 */
export async function settleFiles (core: Core, { blocks, places }: { blocks: Blocks, places: Places }, signal: AbortSignal): Promise<void> {
  const rescans = core.catalog.rescans()
  const files = [...core.registry.files.values()]
  let ended = false
  const settled = async (what: string, work: () => Promise<void>): Promise<void> => {
    throwIfAborted(signal)
    if (ended) return
    try {
      await work()
    } catch (error) {
      if (signal.aborted || isDamage(error)) {
        ended = true
        throw error
      }
      core.volume.note(error)
      core.logger.error({ file: what, error: asError(error).message }, 'what became of a file cannot be found out')
    }
  }
  await findOwn(core, files.filter(({ inPlace }) => !inPlace), rescans, signal)
  await inParallel(LINKS_AT_ONCE, files.filter(file => file.inPlace && rescans.get(file.id) !== undefined), async file => {
    await settled(file.key, async () => { await hashInPlace(core, blocks, file, signal) })
  })
  await settled('those in place', async () => { await places.look(files, signal) })
  await inParallel(LINKS_AT_ONCE, files.filter(({ inPlace }) => !inPlace), async file => {
    await settled(file.key, async () => { await settle(core, blocks, file, rescans.get(file.id), signal) })
  })
  await core.staleFlags.save()
}

/**
 * Of our own files those that are gone but for a link in a model are found by that, and are to be hashed. Where not one stands of those that
 * did, it is another directory: a volume that is not mounted says nothing about what is on it. Throws DiskError then.
 */
async function findOwn ({ bytes, logger }: Core, files: FileRecord[], rescans: Map<number, number | undefined>, signal: AbortSignal): Promise<void> {
  const expected = files.filter(({ id, size, recorded }) => size > 0 && (recorded.count > 0 || rescans.get(id) === 0))
  let gone = 0
  await inParallel(LINKS_AT_ONCE, expected, async file => {
    throwIfAborted(signal)
    const size = await bytes.sizeOf(file).catch(() => file.size) // told when it is looked at by itself
    if (size !== undefined) return
    if (await bytes.recover(file)) {
      logger.warn({ file: file.key }, 'a file was gone, and has its name again, by its link in a model')
      rescans.set(file.id, 0)
    } else {
      gone++
    }
  })
  const path = expected[0]?.ownPath
  if (path === undefined || gone < expected.length) return
  throw new DiskError(`none of the ${gone} files that stood in ${dirname(path)} is there: if they are on another volume, mount it and start again. ` +
    `If they are gone for good, move catalog.sqlite and meta/ out of ${dirname(dirname(path))} first; the node then holds no models`)
}

/** In memory only. */
function forgetBlocks (file: FileRecord): void {
  for (const block of file.recorded) {
    file.recorded.set(block, false)
    file.present.set(block, false)
  }
  file.presentBytes = 0
}

/** Makes one file of our own and what is recorded about it agree. */
async function settle (core: Core, blocks: Blocks, file: FileRecord, rescanFrom: number | undefined, signal: AbortSignal): Promise<void> {
  const { bytes, catalog, logger } = core
  let from = rescanFrom
  if (await bytes.sizeOf(file) !== file.size) {
    if (file.present.count > 0) logger.warn({ file: file.key }, 'a file is gone or has another size; what is left of it is found out by hashing')
    from = 0
    await bytes.restoreSize(file)
  }
  if (from === 0 && file.recorded.count > 0) {
    forgetBlocks(file)
    catalog.setPresence([{ id: file.id, key: file.key, present: file.recorded.bytes, presentBytes: 0, rescan: 0 }], { durable: true })
  }
  if (from !== undefined) {
    await rescan(core, file, from, signal).catch(async error => {
      forgetBlocks(file) // what was hashed may not be durable; the rescan stays due in the catalog
      await bytes.reopen(file).catch(() => undefined) // the error to tell is the one before
      throw error
    })
  }
  if (file.present.full) await blocks.linkComplete(file)
  else await bytes.reopen(file) // it may have lost a block just before a crash, or while nobody looked
}

/** In place it is all or nothing; after a rebuild every block is hashed once, otherwise the guard is enough. */
async function hashInPlace (core: Core, blocks: Blocks, file: FileRecord, signal: AbortSignal): Promise<void> {
  const { guard } = file
  if (guard === undefined) return
  const { index, offsets } = file.details
  try {
    for (let block = 0; block < index.blocks.length; block++) {
      throwIfAborted(signal)
      await withWorkSlot(core, async slot => {
        const into = slot.prepare(offsets[block] ?? 0, index.sizes[block] ?? 0)
        await readGuarded(core.bytes.handles, guard, offsets[block] ?? 0, into)
        const cid = index.blocks.at(block)
        if (cid === undefined || !verifyBytes(cid, into)) throw new GuardBrokenError(`${guard.path} holds other bytes than when it was added`)
      })
    }
    core.catalog.setPresence([{ id: file.id, key: file.key, present: Bitfield.full(index.blocks.length).bytes, presentBytes: file.size }], { durable: false })
    blocks.presentAll(file)
  } catch (error) {
    if (signal.aborted || isDamage(error)) throw error
    if (!(error instanceof GuardBrokenError)) {
      // A mount that is not there today says nothing about the file. Each read is guarded and hashed, so it stays; a
      // rescan that was due is still so in the catalog.
      core.logger.error({ path: guard.path, error: asError(error).message }, 'a file in place cannot be looked at')
      if (!file.present.full) blocks.presentAll(file)
      return
    }
    if (file.present.count === 0) blocks.presentAll(file) // so that there is something to take back, the guard with it
    await blocks.losePlace({ file, place: guard, error })
  }
}

/** Hashes what lies in a file, from block `from` on, and records what is right. */
async function rescan (core: Core, file: FileRecord, from: number, signal: AbortSignal): Promise<void> {
  const { index, offsets } = file.details
  let sinceStep = 0
  let unreadable: { blocks: number, error: string } | undefined
  const step = async (next: number | undefined): Promise<void> => {
    await core.bytes.sync([file]) // what was written just before a crash may be in the cache only
    core.catalog.setPresence([{ id: file.id, key: file.key, present: file.recorded.bytes, presentBytes: file.presentBytes, rescan: next }], { durable: false })
    sinceStep = 0
  }
  for (let block = from; block < index.blocks.length; block++) {
    const size = index.sizes[block] ?? 0
    const cid = index.blocks.at(block)
    if (signal.aborted) {
      await step(block)
      throwIfAborted(signal)
    }
    const right = cid !== undefined && await withWorkSlot(core, async slot => {
      const into = slot.prepare(offsets[block] ?? 0, size)
      try {
        return await core.bytes.read(file, offsets[block] ?? 0, into) === size && verifyBytes(cid, into)
      } catch (error) {
        if (!isUnreadable(error)) throw error // it says nothing about the block: this file is hashed at the next start
        unreadable = { blocks: (unreadable?.blocks ?? 0) + 1, error: asError(error).message }
        return false
      }
    })
    if (right) {
      file.recorded.set(block)
      file.present.set(block)
      file.presentBytes += size
    }
    sinceStep += size
    if (sinceStep >= RESCAN_STEP_BYTES) await step(block + 1)
  }
  await step(undefined)
  if (unreadable !== undefined) core.logger.error({ file: file.key, ...unreadable }, 'blocks cannot be read; they will be fetched again')
}
