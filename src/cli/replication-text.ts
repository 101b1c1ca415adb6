/** What status, show, add --wait and drain say about replicas, in words and tables. */
import type { DrainResult } from '../node/types.ts'
import type { ShownHolder, ShownModelReplication, ShownReplication, ShownShard } from '../api/types.ts'
import { DOMAIN_LEVELS } from '../replication/peer-table.ts'
import { ago, count, duration, likelihood, percent, printable, size, table } from './format.ts'

/** Labels of other names come after these, by name. */
const DOMAIN_ORDER: readonly string[] = DOMAIN_LEVELS
/** More names of one domain than this are counted, not listed. */
const DOMAIN_NAMES_MAX = 8

/** Lines for `shoal status`. */
export function replicationFields (replication: ShownReplication, now: number): Array<[string, string]> {
  const { donateBytes, committedBytes, pendingBytes, pulling, repairMs, durability, draining, scrub } = replication
  return [
    ['donated', [
      donateBytes === 0 ? 'nothing (storage.donate)' : size(donateBytes),
      `${size(committedBytes)} promised to keep`,
      ...(pulling > 0 || pendingBytes > 0 ? [`${count(pulling, 'shard')} coming (${size(pendingBytes)})`] : [])
    ].join(', ')],
    ['replicas', replicasInWords(replication)],
    ['brake', brakeInWords(replication)],
    ...(draining ? [['drain', `draining: hands over what it holds, serves meanwhile, takes nothing new until ${scrub.suspectSince === undefined ? 'it is started again' : 'its volume is trusted again'}`] as [string, string]] : []),
    ['repair', repairMs === undefined ? 'none was needed yet' : `${duration(repairMs / 1000)} from a loss to target (median)`],
    ['durability', durability === undefined ? 'not known before the first repair was measured' : `${likelihood(durability)} a year that nothing pinned is lost (an estimate: docs/REPLICATION.md)`],
    ['scrub', scrubInWords(scrub, now)]
  ]
}

function replicasInWords ({ models }: ShownReplication): string {
  const wanted = models.filter(model => model.target > 0)
  if (wanted.length === 0) return 'no model is to be replicated'
  const short = wanted.filter(model => model.deficitShards > 0)
  if (short.length === 0) return `all ${count(wanted.length, 'model')} at target`
  const sum = (of: (model: ShownModelReplication) => number): number => short.reduce((total, model) => total + of(model), 0)
  return `${short.length} of ${count(wanted.length, 'model')} below target: ${count(sum(model => model.deficitShards), 'shard')}, ${size(sum(model => model.deficitBytes))}, ` +
    `${sum(model => model.repairing)} being repaired${leftInWords(short)}`
}

/** How long what is being repaired takes: the longest of the models, if each is known. Empty when nothing is on its way. */
function leftInWords (models: readonly ShownModelReplication[]): string {
  const running = models.filter(model => model.repairing > 0)
  if (running.length === 0) return ''
  const seconds = running.map(model => model.secondsLeft)
  const known = seconds.filter(each => each !== undefined)
  return known.length < seconds.length ? ', time left not known yet' : `, about ${roughly(Math.max(...known))} left`
}

/** Whole seconds, one at least: it is an estimate. */
function roughly (seconds: number): string {
  return duration(Math.max(1, Math.round(seconds))).replace('.0 ', ' ')
}

function brakeInWords ({ brake, settled }: ShownReplication): string {
  if (brake) return 'ON: many peers vanished at once; only last copies are repaired, nothing is let go'
  return settled ? 'off' : 'off, but the view is not stable yet since the start: nothing is repaired or let go until then'
}

function scrubInWords ({ bytesDone, bytesTotal, bad, lastCompletedAt, suspectSince }: ShownReplication['scrub'], now: number): string {
  return [
    bytesTotal === 0 ? 'nothing to check now' : `${percent(bytesDone, bytesTotal)} of ${size(bytesTotal)}`,
    bad === 0 ? 'none bad' : `${count(bad, 'block')} bad`,
    lastCompletedAt === undefined ? 'no pass complete yet' : `last pass ${ago(lastCompletedAt, now)}`,
    ...(suspectSince === undefined ? [] : [`VOLUME SUSPECT since ${ago(suspectSince, now)}`])
  ].join(', ')
}

/** The models that are to be replicated, worst first; undefined when there is none. */
export function replicationTable (models: readonly ShownModelReplication[], now: number): string | undefined {
  const wanted = models.filter(model => model.target > 0)
  if (wanted.length === 0) return undefined
  wanted.sort((a, b) => (a.replicasMin - a.target) - (b.replicasMin - b.target) || b.deficitShards - a.deficitShards || (a.cid < b.cid ? -1 : 1))
  const repairs = wanted.some(model => model.repairing > 0)
  return table(['MODEL', '>REPLICAS', '>SHARDS', '>BELOW', '>MISSING', '>REPAIRING', ...repairs ? ['>LEFT'] : [], 'PROVEN'], wanted.map(model => [
    model.cid,
    `${model.replicasMin}/${model.target}`,
    String(model.shards),
    String(model.deficitShards),
    model.deficitBytes === 0 ? '-' : size(model.deficitBytes),
    String(model.repairing),
    ...repairs ? [model.repairing === 0 ? '-' : model.secondsLeft === undefined ? 'unknown' : roughly(model.secondsLeft)] : [],
    model.oldestProofAt === undefined ? 'never' : ago(model.oldestProofAt, now)
  ]))
}

/** One model in a line, for `shoal show`. */
/** `isNew`: it came a moment ago, and those who hold it have yet to tell what is asked for. */
export function modelInWords (model: ShownModelReplication | undefined, isNew = false): string {
  if (model === undefined || model.target === 0) return isNew ? 'not known yet' : 'not replicated'
  const { replicasMin, min, target, max, shards, deficitShards, repairing } = model
  const counts = `${replicasMin} of ${target} at the fewest (min ${min}, max ${max})`
  if (deficitShards === 0) return `${counts}, all ${count(shards, 'shard')} at target`
  return `${counts}, ${deficitShards} of ${count(shards, 'shard')} below target, ${repairing} being repaired${leftInWords([model])}`
}

/** In which domains live replicas are: `zone a, b; rack r1, r2`. */
export function domainsInWords (shards: readonly ShownShard[], isNew = false): string {
  const holders = new Map<string, ShownHolder>()
  for (const shard of shards) for (const holder of shard.holders) if (isReplica(holder)) holders.set(holder.peerId, holder)
  if (holders.size === 0) return isNew ? 'not known yet' : 'nobody is known to keep it'
  const names = [...new Set([...holders.values()].flatMap(holder => Object.keys(holder.labels)))].sort(byWidth)
  if (names.length === 0) return `${count(holders.size, 'node')} without labels`
  return names.map(name => {
    const values = [...new Set([...holders.values()].map(holder => holder.labels[name] ?? 'unlabelled'))].sort()
    const listed = values.slice(0, DOMAIN_NAMES_MAX).map(printable).join(', ')
    return `${printable(name)} ${listed}${values.length > DOMAIN_NAMES_MAX ? ` and ${values.length - DOMAIN_NAMES_MAX} more` : ''}`
  }).join('; ')
}

/** Cached copies are free to go, draining ones are on their way out, and those of a peer that is down may be gone. */
function isReplica ({ state }: ShownHolder): boolean {
  return state === 'proven' || state === 'claimed'
}

function byWidth (a: string, b: string): number {
  const rank = (name: string): number => DOMAIN_ORDER.includes(name) ? DOMAIN_ORDER.indexOf(name) : DOMAIN_ORDER.length
  return rank(a) - rank(b) || (a < b ? -1 : 1)
}

/** Every holder of every shard; a shard's own columns stand in its first line only. */
export function shardTable (shards: readonly ShownShard[], target: number, now: number): string {
  if (shards.length === 0) return 'nothing is known of its shards'
  return table(['>SHARD', '>SIZE', '>REPLICAS', 'HOLDER', 'STATE', 'PROVEN', 'LABELS'], shards.flatMap(shard => {
    const own = [String(shard.id), size(shard.bytes), `${shard.replicas}/${target}${shard.repairing ? ' +' : ''}`]
    if (shard.holders.length === 0) return [[...own, 'nobody', '-', '-', '-']]
    return shard.holders.map((holder, i) => [
      ...(i === 0 ? own : ['', '', '']),
      printable(holder.peerId),
      holder.state,
      holder.provenAt === null ? 'never' : ago(holder.provenAt, now),
      Object.entries(holder.labels).sort(([a], [b]) => byWidth(a, b)).map(([name, value]) => printable(`${name}=${value}`)).join(', ') || '-'
    ])
  }))
}

/** What a drain could not hand over, the nearest to being lost first. */
export function leftTable (left: DrainResult['left']): string {
  const rows = [...left].sort((a, b) => a.replicas - b.replicas || (a.model === b.model ? a.shard - b.shard : a.model < b.model ? -1 : 1))
  return table(['MODEL', '>SHARD', '>REPLICAS'], rows.map(({ model, shard, replicas, target }) => [model, String(shard), `${replicas}/${target}`]))
}
