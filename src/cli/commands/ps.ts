import type { Command } from 'commander'
import type { OriginFetch } from '../../node/types.ts'
import { action } from '../context.ts'
import { duration, percent, rate, size, table } from '../format.ts'

export function addPs (program: Command): void {
  program.command('ps')
    .description('running loads')
    .action(action(async context => {
      const [transfers, { origin }] = await Promise.all([context.client.transfers(), context.client.status()])
      const fetches = origin?.fetches ?? []
      const loads = transfers.length === 0
        ? fetches.length === 0 ? ['nothing is loading'] : []
        : [table(['CID', '>DONE', '>SIZE', '>RATE', '>LEFT', '>PEERS', '>CALLERS'], transfers.map(({ cid, progress, callers, partOf, resting }) => [
          partOf === undefined ? cid : `${cid} (of ${partOf})`,
          progress.phase === 'finding' ? 'finding' : percent(progress.bytesDone, progress.bytesTotal),
          size(progress.bytesTotal),
          rate(progress.rate),
          resting ? 'open' : progress.secondsLeft === undefined ? '-' : duration(progress.secondsLeft),
          String(progress.peers),
          String(callers)
        ]))]
      context.print([...transfers, ...fetches], [...loads, ...fetches.length === 0 ? [] : [originTable(fetches, Date.now())]].join('\n\n'))
    }))
}

/** What comes, or is about to come, from the upstream. */
function originTable (fetches: readonly OriginFetch[], now: number): string {
  return table(['UPSTREAM', '>DONE', '>SIZE', '>FOR', 'STATE'], fetches.map(({ repo, commit, phase, peerId, startedAt, bytesDone, bytesTotal }) => [
    `${repo}@${commit.slice(0, 12)}`,
    percent(bytesDone, bytesTotal),
    size(bytesTotal),
    duration(Math.max(0, now - startedAt) / 1_000),
    phase === 'waiting' && peerId !== undefined ? `${peerId} fetches it` : phase
  ]))
}
