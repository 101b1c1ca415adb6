import type { Command } from 'commander'
import { action } from '../context.ts'
import { size } from '../format.ts'

export function addGc (program: Command): void {
  program.command('gc')
    .description('evict least recently used cached models down to storage.quota, and remove leftovers')
    .option('--dry-run', 'only say what would go')
    .action(action(async (context, { dryRun = false }: { dryRun?: boolean }) => {
      const result = await context.client.gc({ dryRun })
      const { removed, freedBytes, leftoverBytes } = result
      context.print({ dryRun, ...result }, [
        ...removed.map(model => `${dryRun ? 'would remove' : 'removed'} ${model.cid}, ${size(model.freedBytes)}`),
        `${dryRun ? 'would free' : 'freed'} ${size(freedBytes + leftoverBytes)}, ${size(leftoverBytes)} of it leftovers`
      ].join('\n'))
    }))
}
