import { GiB } from '../base/index.ts'
import { awayOf } from '../storage/index.ts'
import type { StoredModel } from '../storage/store.ts'
import type { NodeSettings, NodeStatus, PeerStatus } from './types.ts'

/** Records expire at 48 h; a backlog this late means the swarm is losing sight of what is here. */
const ANNOUNCE_LAG_PROBLEM_MS = 2 * 3_600_000
const FREE_BYTES_PROBLEM = 1 * GiB

/** What an operator should look at, most serious first, each with what to do. */
export function problemsOf (
  status: Omit<NodeStatus, 'problems'>,
  settings: NodeSettings,
  banned: PeerStatus[],
  models: StoredModel[],
  /** Loaded now, or held in part on purpose. */
  isPartOnPurpose: (cid: string) => boolean,
  replication: string[],
  /** Peers of former times, of which none answers. */
  unreached = 0
): string[] {
  const problems: string[] = []
  const { storage, announce } = status
  if (!storage.writable) problems.push(`the data volume is read-only for Shoal: ${storage.error ?? 'unknown reason'}; what is held is still served, loads fail until this is mended`)
  const broken = models.filter(model => model.published && !model.complete)
  for (const model of broken) {
    const away = awayOf(model)
    if (away !== undefined) {
      problems.push(`${model.cid} was added here, and ${away.files} of its files, held in place, are away: ${away.path} is not there or may not be read. It is served again when they are back, and verify looks at once`)
    } else problems.push(`${model.cid} was added here but ${model.bytes - model.presentBytes} of its bytes are gone or changed; add it again, or fetch them from others: shoal get ${model.cid}`)
  }
  // What was released after the swarm had no need of it is no half-done load.
  const partial = models.filter(model => (model.pinned || settings.storage.donate === 0) && !model.published && !model.complete && !isPartOnPurpose(model.cid))
  for (const model of partial) problems.push(`${model.cid} is held in part (${Math.floor(100 * model.presentBytes / Math.max(1, model.bytes))} %); go on with: shoal get ${model.cid}`)
  problems.push(...replication)
  // A volume that is not trusted drains by itself, and is told above.
  if (status.replication.draining && status.replication.scrub.suspectSince === undefined) problems.push('this node is draining: its copies count as no replicas and it takes nothing new, until the daemon is started again')
  if (storage.writable && storage.volumeFreeBytes !== undefined && storage.volumeFreeBytes < FREE_BYTES_PROBLEM) {
    problems.push('less than 1 GiB is free on the data volume; remove models (shoal rm CID), or set storage.quota, down to which shoal gc evicts what was only loaded')
  }
  if (storage.quotaBytes !== undefined && storage.heldBytes > storage.quotaBytes) {
    problems.push('more is held than storage.quota allows, all of it pinned, published or in use; unpin or remove models, or raise the quota')
  }
  if (status.peersConnected === 0 && settings.join.length > 0) problems.push('no peer is connected: none of the peers to join answers; check their addresses and the swarm key')
  else if (status.peersConnected === 0 && unreached > 0) problems.push(`no peer is connected: none that this node remembers answers (${unreached} in all); check that they run and that the network between them and this node is up`)
  if (announce.lagMs > ANNOUNCE_LAG_PROBLEM_MS) problems.push(`announcing is ${Math.round(announce.lagMs / 3_600_000)} h late: others may not find what is here`)
  if (banned.length > 0) problems.push(`${banned.length} ${banned.length === 1 ? 'peer is' : 'peers are'} banned for misbehaving: see shoal peers`)
  return problems
}
