import type { Command } from 'commander'
import { AbortError, DRAIN_MS_MAX, UsageError } from '../../base/index.ts'
import { action } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import { count, duration } from '../format.ts'
import { leftTable } from '../replication-text.ts'
import { parseDuration, showDuration } from '../units.ts'

export function addDrain (program: Command): void {
  program.command('drain')
    .description('hand over everything this node keeps for the swarm; exit code 1 if something is left')
    .option('--deadline <duration>', 'stop waiting after this long, such as 90s; the last copies go first; holders that are away are waited for only if there is time')
    .action(action(async (context, { deadline }: { deadline?: string }) => {
      const deadlineMs = deadline === undefined ? undefined : parseDeadline(deadline)
      context.listenForInterrupts()
      const progress = context.progress('draining')
      const result = await context.client.drain({ deadlineMs, signal: context.signal, onProgress: now => { progress.update(now) } })
        .catch(error => {
          if (!context.signal.aborted) throw error
          throw new AbortError('interrupted; the node goes on draining until it is started again; wait for it with: shoal drain', { cause: error })
        })
        .finally(() => { progress.stop() })
      context.print(result, result.complete
        ? `all is handed over, in ${duration(result.seconds)}; the node may go`
        : `${leftTable(result.left)}\n\n${count(result.left.length, 'shard')} not handed over in ${duration(result.seconds)}; keep the node running, or lose these replicas`)
      return result.complete ? EXIT.done : EXIT.failed
    }))
}

function parseDeadline (text: string): number {
  const ms = parseDuration(text)
  if (ms < 1 || ms > DRAIN_MS_MAX) throw new UsageError(`--deadline is a duration of 1ms to ${showDuration(DRAIN_MS_MAX)}, such as 90s, not ${text}`)
  return ms
}
