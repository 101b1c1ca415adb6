import type { Command } from 'commander'
import { action } from '../context.ts'
import { size } from '../format.ts'

/** Who has no answer by then wants to know why. */
const TOLD_AFTER_MS = 2_000

export function addGc (program: Command): void {
  program.command('gc')
    .description('evict least recently used cached models down to storage.quota, and remove leftovers')
    .option('--dry-run', 'only say what would go')
    .action(action(async (context, { dryRun = false }: { dryRun?: boolean }) => {
      const telling = setTimeout(() => { context.note('waiting: gc begins when what is being added now is added, as that would look like leftovers') }, TOLD_AFTER_MS)
      const result = await context.client.gc({ dryRun }).finally(() => { clearTimeout(telling) })
      const { removed, freedBytes, leftoverBytes } = result
      context.print({ dryRun, ...result }, [
        ...removed.map(model => `${dryRun ? 'would remove' : 'removed'} ${model.cid}, ${size(model.freedBytes)}`),
        `${dryRun ? 'would free' : 'freed'} ${size(freedBytes + leftoverBytes)}, ${size(leftoverBytes)} of it leftovers`
      ].join('\n'))
    }))
}
