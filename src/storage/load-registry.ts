import { CID } from 'multiformats/cid'
import { Bitfield, KiB, nextTurn } from '../base/index.ts'
import { decodeManifest, parseModelCid, verifyBytes } from '../model/index.ts'
import { UnknownSchemaError, type FileRow } from './catalog.ts'
import { sweepCatalog, type Core } from './core.ts'
import { FileRecord, ModelRecord } from './records.ts'

/** Rows of the catalog that are looked at in one go at the start: a few ms. As much as one row counts so much of a large one, which is hashed. */
const LOOKED_PER_TURN = 250
const LOOKED_BYTES = 16 * KiB

/** Brings what the catalog has into the registry, in turns. Throws UnknownSchemaError when its parts do not fit together. */
export async function loadRegistry (core: Core): Promise<void> {
  const { catalog, registry } = core
  let looked = 0
  /** Of `size` small things, or what takes as long. */
  const pause = async (size: number): Promise<void> => {
    looked += size
    if (looked < LOOKED_PER_TURN) return
    looked = 0
    await nextTurn()
  }
  await sweepCatalog(core)
  for (const cid of catalog.metadataCids()) {
    const bytes = catalog.metadata(cid)
    if (bytes === undefined || !verifyBytes(CID.parse(cid), bytes)) throw new UnknownSchemaError(`its copy of ${cid} is damaged`)
    await pause(1 + bytes.length / LOOKED_BYTES)
  }
  for (const row of catalog.files()) {
    if (!catalog.hasMetadata(row.key)) throw new UnknownSchemaError(`it lacks the file index ${row.key}`)
    registry.addFile(recordOfRow(core, row))
    await pause(1)
  }
  for (const row of catalog.models()) {
    const bytes = catalog.metadata(row.cid)
    if (bytes === undefined) throw new UnknownSchemaError(`it lacks the manifest ${row.cid}`)
    const manifest = decodeManifest(parseModelCid(row.cid), bytes)
    await pause(1 + bytes.length / LOOKED_BYTES)
    const files: FileRecord[] = []
    for (const { index } of manifest.value.files) {
      const file = registry.files.get(index.toString())
      if (file === undefined) throw new UnknownSchemaError(`it lacks files of the model ${row.cid}`)
      files.push(file)
      await pause(1)
    }
    registry.addModel(new ModelRecord({ ...row, manifest, files, ownDirectory: core.bytes.directoryOf(row.cid) }))
  }
}

function recordOfRow ({ bytes, details }: Core, row: FileRow): FileRecord {
  return new FileRecord({
    id: row.id,
    key: row.key,
    size: row.size,
    recorded: new Bitfield(row.blocks, row.present),
    presentBytes: row.presentBytes,
    guard: row.guard,
    others: row.others,
    ownPath: bytes.pathOf(row.key),
    details
  })
}
