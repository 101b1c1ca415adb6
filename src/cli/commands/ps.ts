import type { Command } from 'commander'
import { action } from '../context.ts'
import { duration, percent, rate, size, table } from '../format.ts'

export function addPs (program: Command): void {
  program.command('ps')
    .description('running loads')
    .action(action(async context => {
      const transfers = await context.client.transfers()
      context.print(transfers, transfers.length === 0
        ? 'nothing is loading'
        : table(['CID', '>DONE', '>SIZE', '>RATE', '>LEFT', '>PEERS', '>CALLERS'], transfers.map(({ cid, progress, callers }) => [
          cid,
          progress.phase === 'finding' ? 'finding' : percent(progress.bytesDone, progress.bytesTotal),
          size(progress.bytesTotal),
          rate(progress.rate),
          progress.secondsLeft === undefined ? '-' : duration(progress.secondsLeft),
          String(progress.peers),
          String(callers)
        ])))
    }))
}
