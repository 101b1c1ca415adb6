import { MiB, ModelInUseError, ModelNotFoundError, asError, throwIfAborted, type AbortOptions, type Clock, type Logger, type Random } from '../base/index.ts'
import { positionOf } from '../model/index.ts'
import { Origin } from '../origin/index.ts'
import type { ArrivedFile, Hints, OriginComponents, OriginInit } from '../origin/index.ts'
import type { ModelStore, StoredFile } from '../storage/store.ts'
import type { Adds } from './adds.ts'
import type { Descriptions } from './describe.ts'
import type { Links } from './links.ts'
import type { Loads } from './load.ts'
import { removeModel, type RemovalComponents } from './removal.ts'
import { version } from './version.ts'

export interface OriginWiring extends Pick<OriginComponents, 'network' | 'router' | 'isBanned' | 'learn'> {
  clock: Clock
  random: Random
  logger: Logger
  store: ModelStore
  loads: Loads
  adds: Adds
  descriptions: Descriptions
  links: Links
  discard: (cid: string) => Promise<boolean>
}

/** Read at once while a file is compared with its hash. */
const PIECE_BYTES = 1 * MiB

/** Takes a model away that nobody needs, unless it has other uses here. False: somebody reads it just now, or it cannot be removed. */
export async function discardModel (components: RemovalComponents & { links: Links, logger: Logger }, cid: string): Promise<boolean> {
  const { store, links, logger } = components
  const held = store.model(cid)
  // A peer's word about what somebody added or keeps here is no reason to take it away.
  if (held === undefined || held.published || held.pinned || links.list().some(link => link.cid === cid)) return true
  if (store.isHeld(cid)) return false
  try {
    await removeModel(components, held, { onlyCached: true })
    return true
  } catch (error) {
    if (error instanceof ModelNotFoundError) return true
    if (error instanceof ModelInUseError) return !store.isHeld(cid) // not read: it has another use by now
    logger.warn({ cid, error: asError(error).message }, 'a model that nobody needs could not be removed')
    return false
  }
}

/** The origin over the parts of a node. */
export function createOrigin (wiring: OriginWiring, init: Pick<OriginInit, 'upstream' | 'leftovers' | 'isTemporary'>): Origin {
  const { store, loads, adds, descriptions, links, discard } = wiring
  return new Origin({
    ...wiring,
    makeRoom: async (bytes, what, options) => { await store.makeRoom(bytes, what, options) },
    addInstalment: async (path, options) => await adds.addInstalment(path, options),
    combine: async (cids, options) => await adds.combine(cids, options),
    adopt: async (cid, options) => { (await loads.open(cid, { rangesOnly: true, ...options })).close() },
    openWhole: (cid, path) => openWhole(store, cid, path),
    hold: cid => store.holdModel(cid),
    describe: async (cid, options) => await descriptions.describe(cid, options),
    read: (cid, path, options) => readFile(loads, cid, path, options),
    readSome: async (cid, path, { offset, length }, options) => {
      const model = await loads.open(cid, { include: [path], order: 'sequential', ...options })
      try {
        return await model.read(path, offset, length, options)
      } finally {
        model.close()
      }
    },
    local: ({ sha256, oid }, options) => {
      const isIt = ({ index, present }: StoredFile): boolean => present.full && (sha256 === undefined ? index.gitSha1 !== undefined && hex(index.gitSha1) === oid : hex(index.sha256) === sha256)
      for (const model of store.models()) {
        const file = model.files.find(isIt)
        if (file !== undefined) return readStored(store, file, options)
      }
      return undefined
    },
    held: cid => {
      const model = store.model(cid)
      return model === undefined ? undefined : model.complete ? 'whole' : 'part'
    },
    discard,
    names: repo => (repo === undefined ? links.list() : links.of(repo)).flatMap(({ repo, revision, cid, origin }) => origin === undefined ? [] : [{ repo, revision, cid, ...origin }]),
    link: async ({ repo, revision, cid, commit, restricted, id }) => {
      // What a user linked stays as it is.
      const there = links.get({ repo, revision })
      if (there === undefined || there.origin !== undefined) await links.put({ repo, revision }, cid, { commit, restricted, ...(id === undefined ? {} : { id }) })
    }
  }, { ...init, userAgent: `shoal/${version}`, self: wiring.network.peerId.toString() })
}

function openWhole (store: ModelStore, cid: string, path: string): ArrivedFile | undefined {
  const model = store.model(cid)
  const file = model?.files[positionOf(model.manifest.value.files, path)]
  if (file?.present.full !== true) return undefined
  const letGo = store.holdModel(cid)
  return {
    size: file.index.size,
    read: async (offset, into) => { await store.readRange(file, offset, into.length, into) },
    close: async () => { letGo() }
  }
}

/** As the store has it: what reads it compares it again. */
async function * readStored (store: ModelStore, file: StoredFile, { signal }: AbortOptions): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < file.index.size; at += PIECE_BYTES) {
    throwIfAborted(signal)
    yield await store.readRange(file, at, Math.min(PIECE_BYTES, file.index.size - at))
  }
}

function hex (bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex')
}

/** Whole first, so that it comes from many peers in whatever order is best; then piece by piece. */
async function * readFile (loads: Loads, cid: string, path: string, options: AbortOptions & Hints): AsyncGenerator<Uint8Array> {
  const model = await loads.open(cid, { include: [path], ...options })
  try {
    await model.done
    const { size } = model.file(path)
    const buffer = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, size))
    for (let at = 0; at < size; at += buffer.length) {
      const into = buffer.subarray(0, Math.min(buffer.length, size - at))
      await model.read(path, at, into.length, { into, ...options })
      yield into
    }
  } finally {
    model.close()
  }
}
