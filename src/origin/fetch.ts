import { join } from 'node:path'
import { OutOfSpaceError, asError, sleep, throwIfAborted, type Clock, type Logger } from '../base/index.ts'
import { checkClaim, checkDescription } from './check-description.ts'
import { yieldsTo, type Claim } from './claims.ts'
import type { LocalFiles, OriginComponents } from './components.ts'
import { Download, placesOf } from './download.ts'
import { Instalments, type InstalmentsComponents } from './instalments.ts'
import type { KnownModel } from './known-model.ts'
import type { OriginSwarm } from './swarm.ts'
import type { Caller, OriginFetch } from './types.ts'
import type { Upstream } from './upstream.ts'

export interface FetchRevisionComponents extends InstalmentsComponents, Pick<OriginComponents, 'combine' | 'makeRoom'> {
  upstream: Upstream
  swarm: OriginSwarm
  clock: Clock
  logger: Logger
  local: LocalFiles
}

export interface FetchRevisionInit {
  known: KnownModel
  caller: Caller
  directory: string
  self: string
  progress: OriginFetch
  /** All that comes from the upstream now: each needs the room that the others have yet to take. */
  downloads: Set<Download>
  /** What this node says of itself from now on; `download` gives what is here of a file, and `instalments` what others can load. */
  claim: (claim: Claim | undefined, here?: { download: Download, instalments: Instalments }) => void
  signal: AbortSignal
}

/** A peer of higher rank began as well, or has it already. */
export class YieldedError extends Error {
  readonly claim: Claim

  constructor (claim: Claim) {
    super(`${claim.peerId} fetches it`)
    this.claim = claim
  }
}

/** Between two words to those who remember: a claim is void after CLAIM_MS. */
const TELL_FIRST_MS = 1_000
const TELL_MS = 3_000
/** Every so often also to those who are found by the model's name. */
const DEEP_EVERY = 4

/**
 * Fetches a model from the upstream and publishes it. Says what it does before the first byte is asked for, and lets go when a
 * peer of higher rank does the same: then nobody, or one, goes on. Throws YieldedError, what Download and publishing throw.
 */
export async function fetchRevision (components: FetchRevisionComponents, init: FetchRevisionInit): Promise<string> {
  const { known, caller, progress, signal: given } = init
  const over = new AbortController()
  const signal = AbortSignal.any([given, over.signal])
  const directory = join(init.directory, known.key)
  const instalments = new Instalments(components, { known, ...placesOf(directory), signal })
  const download = new Download(components, {
    model: known.model,
    caller,
    directory,
    published: instalments.paths,
    arrived: (path, place) => {
      known.arrivals.onDisk(path, place)
      instalments.arrived(path)
    },
    signal
  })
  const isPublishing = (): boolean => progress.phase === 'publishing'
  const tell = async (deep: boolean): Promise<void> => {
    progress.bytesDone = download.bytesDone
    // Twice: what came, and what was cut into blocks, which takes its time of a large model.
    const bytesDone = download.bytesDone + instalments.bytesDone
    init.claim({ peerId: init.self, state: 'fetching', cid: undefined, bytesDone, bytesTotal: 2 * download.bytesTotal }, { download, instalments })
    const { claims: said } = await components.swarm.look(known.key, known.name, { deep, signal })
    // It is all here by now, and what is cut into blocks already would have to come again.
    if (isPublishing()) return
    const now = components.clock.monotonic()
    // What was not to be had before is no reason to stop half way: a description is remembered, and outlives its model.
    const others = said.filter(claim => known.listensTo(claim, now) && (claim.cid === undefined || !known.hasMissed(claim.cid)))
    const other = yieldsTo(known.key, init.self, others, bytesDone)
    if (other === undefined) return
    if (other.state === 'have') {
      try {
        await checkClaim(components, known, other, signal)
      } catch (error) {
        throwIfAborted(signal)
        known.doubt(other, error, components.clock.monotonic())
        components.logger.info({ peerId: other.peerId, repo: known.repo, error: asError(error).message }, 'a peer has not what it says')
        return
      }
      if (isPublishing()) return
    }
    throw new YieldedError(other)
  }
  const keepTelling = async (): Promise<void> => {
    for (let turn = 1; !signal.aborted; turn++) {
      await sleep(components.clock, turn < 4 ? TELL_FIRST_MS : TELL_MS, signal)
      await tell(turn % DEEP_EVERY === 0)
    }
  }
  progress.phase = 'fetching'
  let isFull = false
  let telling: Promise<void> = Promise.resolve()
  let publishing: Promise<void> = Promise.resolve()
  try {
    await tell(false)
    await instalments.resume()
    await download.look()
    await makeRoom(components, init, download)
    telling = keepTelling()
    telling.catch(error => { over.abort(error) })
    publishing = instalments.run()
    publishing.catch(error => { over.abort(error) })
    await download.run()
    progress.phase = 'publishing'
    instalments.end()
    await publishing
    const { cid } = await components.combine(instalments.cids, { signal })
    checkDescription(known, await components.describe(cid, { signal }), 'this disk')
    await download.remove()
    return cid
  } catch (error) {
    const why: unknown = over.signal.aborted ? over.signal.reason : error
    // What is there is gone on with next time; not where more of it was to come, and it has taken the last room. A refusal has no cause: it took none.
    isFull = why instanceof OutOfSpaceError && why.cause !== undefined && !isPublishing()
    throwIfAborted(given)
    throw why
  } finally {
    init.downloads.delete(download)
    init.claim(undefined)
    over.abort(new YieldedError({ peerId: init.self, state: 'want', cid: undefined, bytesDone: 0, bytesTotal: 0 }))
    await Promise.allSettled([telling, publishing])
    known.arrivals.clear()
    instalments.release()
    if (isFull) {
      await download.remove().catch(removal => { components.logger.warn({ error: asError(removal).message }, 'what was begun from the upstream could not be removed') })
      await components.book.retire(known.key, 0)
    }
  }
}

/** For this one beside those that asked before it. Throws QuotaExceededError, OutOfSpaceError. */
async function makeRoom ({ makeRoom }: Pick<OriginComponents, 'makeRoom'>, { known, downloads }: FetchRevisionInit, download: Download): Promise<void> {
  const what = downloads.size === 0 ? `${known.repo} from the upstream` : `${known.repo}, and what else is on its way from the upstream`
  downloads.add(download)
  let [bytes, newBytes] = [0, 0]
  for (const { room } of downloads) {
    bytes += room.bytes
    newBytes += Math.max(0, room.bytes - room.hereBytes)
  }
  await makeRoom(bytes, what, { newBytes })
}
