import type { Command } from 'commander'
import type { ShownStatus } from '../../api/types.ts'
import { action } from '../context.ts'
import { ago, count, duration, fields, printable, size } from '../format.ts'
import { replicationFields, replicationTable } from '../replication-text.ts'

export function addStatus (program: Command): void {
  program.command('status')
    .description('everything in short, problems first')
    .action(action(async context => {
      const status = await context.client.status()
      const now = Date.now()
      const models = replicationTable(status.replication.models, now)
      context.print(status, [problems(status), describe(status, now), ...(models === undefined ? [] : [models])].join('\n\n'))
    }))
}

function problems ({ problems }: ShownStatus): string {
  if (problems.length === 0) return 'all is well'
  return problems.map(problem => `! ${printable(problem)}`).join('\n')
}

/** Mostly others are told just where it listens. */
function addressFields ({ listening, multiaddrs }: ShownStatus): Array<[string, string]> {
  const row = (name: string, addresses: string[]): [string, string] => [name, addresses.join('\n            ') || 'nowhere']
  const isSame = multiaddrs.every(address => listening.some(own => address.startsWith(`${own}/p2p/`)))
  return isSame ? [row('listening', multiaddrs)] : [row('listening', listening), row('found at', multiaddrs)]
}

function originFields (origin: ShownStatus['origin']): Array<[string, string]> {
  if (origin === undefined) return []
  const { upstream, fetches, counters: { bytes, requests, fetched, shared, failed } } = origin
  const running = fetches.map(({ repo, phase, bytesDone, bytesTotal }) => `${repo}: ${phase}, ${size(bytesDone)} of ${size(bytesTotal)}`)
  return [['upstream', [
    `${upstream}: ${count(fetched, 'model')} fetched (${size(bytes)} in ${count(requests.ok, 'answer')}), ${shared} came from peers instead, ${failed} failed`,
    ...running
  ].join('\n            ')]]
}

function describe (status: ShownStatus, now: number): string {
  const { models, storage, announce, labels } = status
  const named = Object.entries(labels)
  return fields([
    ['peer', status.peerId],
    ['version', status.version],
    ['up', duration(status.uptimeSeconds)],
    ...addressFields(status),
    ...(named.length === 0 ? [] : [['labels', named.map(([name, value]) => `${name}=${value}`).join(', ')] as [string, string]]),
    ['peers', `${status.peersConnected} connected`],
    ['models', `${models.count} (${models.complete} complete, ${models.pinned} pinned), ${size(models.bytes)}`],
    ['loads', String(status.transfers)],
    ['storage', [
      `${size(storage.heldBytes)} held`,
      storage.quotaBytes === undefined ? 'no quota' : `quota ${size(storage.quotaBytes)}`,
      storage.volumeFreeBytes === undefined ? '' : `${size(storage.volumeFreeBytes)} free`,
      storage.writable ? '' : 'READ-ONLY',
      storage.directIo ? 'direct I/O' : 'buffered I/O'
    ].filter(part => part !== '').join(', ')],
    ['announced', [
      count(announce.keys, 'key'),
      announce.backlog === 0 ? 'none due' : `${announce.backlog} due, the oldest for ${duration(announce.lagMs / 1000)}`,
      announce.sweptAt === undefined ? 'not swept yet' : `last sweep ${ago(announce.sweptAt, now)}`
    ].join(', ')],
    ...originFields(status.origin),
    ...replicationFields(status.replication, now)
  ])
}
