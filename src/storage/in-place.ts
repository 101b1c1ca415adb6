import { stat } from 'node:fs/promises'
import { systemCode } from '../base/index.ts'
import { readFully, type HandlePool } from './handles.ts'
import type { FileGuard } from './store.ts'

/**
 * A file in place belongs to its user, who may change it at any time. It is looked at before and after each read, by
 * its open descriptor and by its path; a guard that no longer fits means that nothing of it can be trusted.
 */
export class GuardBrokenError extends Error {}
/** It is not there, or not for us: that may be for a while, and says nothing about the file. */
export class PlaceAwayError extends GuardBrokenError {}

/** Places of one file that are kept in mind: each costs a look at every start, and nobody needs more copies of one model than that. */
const PLACES_MAX = 8
/** Of a file that many models share, so that each can have its own: what is kept beside the catalog grows with the square of it. */
const SHARED_PLACES_MAX = 64

/** Known places with `place` before all others, in the stead of what was at its path. As many as the file has models can be one for each. */
export function placesWith (place: FileGuard, known: readonly FileGuard[], models = 0): FileGuard[] {
  return [place, ...known.filter(({ path }) => path !== place.path)].slice(0, Math.min(SHARED_PLACES_MAX, PLACES_MAX + models))
}

export function sameGuard (one: FileGuard, other: FileGuard): boolean {
  return one.path === other.path && one.size === other.size && one.mtimeMs === other.mtimeMs && one.ino === other.ino
}

interface Facts { size: number, mtimeMs: number, ino: number }

/** Throws GuardBrokenError with what changed; other system errors as they are. */
export async function checkGuard (guard: FileGuard): Promise<void> {
  compare(guard, await stat(guard.path).catch(error => { throw gone(guard, error) }))
}

/** Fills `into` from the guarded file. Throws GuardBrokenError, or the system's error. */
export async function readGuarded (handles: HandlePool, guard: FileGuard, offset: number, into: Uint8Array): Promise<void> {
  try {
    await checkGuard(guard)
    try {
      await readOpen(handles, guard, offset, into)
    } catch (error) {
      if (!(error instanceof GuardBrokenError)) throw error
      await handles.forget(guard.path) // it was open since before the guarded file took its path
      await readOpen(handles, guard, offset, into)
    }
  } catch (error) {
    await handles.forget(guard.path) // it may be another file by now, and a deleted one frees nothing while it is open
    throw gone(guard, error)
  }
}

async function readOpen (handles: HandlePool, guard: FileGuard, offset: number, into: Uint8Array): Promise<void> {
  await handles.use(guard.path, 'read', async handle => {
    compare(guard, await handle.stat())
    const read = await readFully(handle, into, offset)
    if (read < into.length) throw new GuardBrokenError(`${guard.path} ends at ${offset + read}`)
    compare(guard, await handle.stat())
  })
}

function compare (guard: FileGuard, now: Facts): void {
  for (const fact of ['size', 'mtimeMs', 'ino'] as const) {
    if (now[fact] !== guard[fact]) throw new GuardBrokenError(`${guard.path} changed: its ${fact} was ${guard[fact]} and is ${now[fact]}`)
  }
}

function gone (guard: FileGuard, error: unknown): unknown {
  const code = systemCode(error)
  if (code !== 'ENOENT' && code !== 'ENOTDIR' && code !== 'EACCES') return error
  return new PlaceAwayError(`${guard.path} cannot be opened any more (${code})`, { cause: error })
}
